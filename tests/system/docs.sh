# The sessions in the documentation, run.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh

# A registry on localhost:5000 with the image of Debian.
registry() {
  # shellcheck source=scripts/lib.sh
  (. "$repo/scripts/lib.sh"; mkdir registry; registry docker-registry "$PWD/registry" 5000)
  "$repo/scripts/demo-image" "$TEST_IMAGES/debian" --push localhost:5000/debian 12
}

test_readme_session() {
  registry
  bocker setup 2>/dev/null
  before=$(census | grep -vE '^process|layers$')
  mkdir work && cd work
  "$repo/tests/transcript" "$repo/README.md"
  for id in $(bocker ps; bocker images); do
    case $id in ps_* | img_*) bocker rm "$id" >/dev/null ;; esac
  done
  is "$(census | grep -vE '^process|layers$')" "$before" "census"
}
