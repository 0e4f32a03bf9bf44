# bocker-pull's verbs beside manifest and fetch: digest, config, tags, blob; and progress for a program.
# shellcheck shell=bash disable=SC2154 # repo: tests/lib.sh
# shellcheck source=tests/system/pull.sh
source "$repo/tests/system/pull.sh"

# says VERB WORDS...: what it prints and what its dry run's shell prints are the same, and in the file `said`
says() {
  bocker-pull "$@" >said 2>err || fail "$*: $(cat err)"
  is "$(cat err)" "" "stderr of $*"
  bocker-pull "$1" --dry-run "${@:2}" >script
  sh -e script >by-shell 2>err || fail "the shell of $*: $(cat err) $(cat script)"
  cmp said by-shell || fail "$*: the shell says something else"
}

test_pull_digest() {
  registry
  evil
  push group/a:1 oci
  real=$(skopeo inspect --tls-verify=false docker://127.0.0.1:5000/group/a:1 | jq -r .Digest)
  says digest 127.0.0.1:5000/group/a 1
  is "$(cat said)" "127.0.0.1:5000/group/a@$real"
  says digest "$(cat said)"
  is "$(cat said)" "127.0.0.1:5000/group/a@$real"
  # Of an index: the index's own; of a platform: its image's, which is what manifest pins.
  says digest "$evil/index"
  whole=$(cat said)
  says digest --platform linux/amd64 "$evil/index"
  [ "$(cat said)" != "$whole" ] || fail "an index has another digest than its image"
  is "$(cat said)" "$(bocker-pull manifest --platform linux/amd64 "$evil/index" | awk -F'\t' '$1 == "image" { print $2 }')"
  # A filter.
  printf '%s\n' "$evil/index" '' "$evil/good 7" | bocker-pull digest - >said
  is "$(cat said)" "$whole
$(bocker-pull digest "$evil/good")"
  status=0
  printf '%s\n' "$evil/good" "$evil/404" "$evil/good" | bocker-pull digest - >said 2>err || status=$?
  is "$status:$(wc -l <said):$(cat err)" "1:1:bocker-pull: No image named '$evil/404:latest' exists"
  fails 2 "is not an image name" sh -c "echo 'a b c' | bocker-pull digest -"
  fails 1 "it is text/html, not a manifest" bocker-pull digest "$evil/html"
  fails 1 "what came is sha256:" bocker-pull digest "$evil/wrong-manifest@${real/#sha256:*/$(bocker-pull digest "$evil/good" | sed 's/.*@//')}"
}

test_pull_config() {
  registry
  evil
  push group/a:1 oci
  says config 127.0.0.1:5000/group/a:1
  is "$(sha256sum <said)" "$(skopeo inspect --config --raw --tls-verify=false docker://127.0.0.1:5000/group/a:1 | sha256sum)"
  is "$(jq -c .config.Cmd said)" '["/bin/sh"]'
  says config --platform linux/amd64 "$evil/nested"
  printf '%s\n' "$evil/good" 127.0.0.1:5000/group/a:1 | bocker-pull config - | jq -c .config.Cmd >said
  is "$(cat said)" '["/one"]
["/bin/sh"]'
  fails 1 "what came is sha256:" bocker-pull config "$evil/wrong-config"
  fails 1 "names 2 layers, the manifest 1" bocker-pull config "$evil/fewer-layers"
  fails 1 "not a container image" bocker-pull config "$evil/chart"
}

test_pull_tags() {
  registry
  evil
  push group/a:1 oci
  for tag in 2 3 4; do skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false docker://127.0.0.1:5000/group/a:1 "docker://127.0.0.1:5000/group/a:$tag"; done
  says tags 127.0.0.1:5000/group/a
  is "$(cat said)" "$(skopeo list-tags --tls-verify=false docker://127.0.0.1:5000/group/a | jq -r '.Tags[]')"
  # Page by page.
  : >requests
  says tags "$evil/good"
  is "$(wc -l <said):$(head -1 said):$(tail -1 said):$(sort -u said | wc -l)" 2500:t0000:t2499:2500
  is "$(bocker-pull tags "$evil/good" | wc -l)" 2500
  like "$(cat requests)" 'tags/list\?last=t0999&n=1000 '
  says tags "$evil/tags-none"
  is "$(cat said)" ""
  fails 1 "No image named '127.0.0.1:5000/none' exists" bocker-pull tags 127.0.0.1:5000/none
  fails 1 "there are more than 1000 pages" bocker-pull tags "$evil/tags-endless"
  fails 1 "its next page is elsewhere" bocker-pull tags "$evil/tags-elsewhere"
  is "$(cat foreign)" "" "requests to the foreign port"
  fails 1 "one of its tags is none" bocker-pull tags "$evil/tags-lines"
  fails 2 "names one tag or digest" bocker-pull tags "$evil/good:1"
  fails 2 "not an image name" bocker-pull tags "$evil/Good"
}

test_pull_blob() {
  registry
  evil
  push group/a:1 oci
  bocker-pull manifest 127.0.0.1:5000/group/a:1 >records
  layer=$(awk -F'\t' '$1 == "layer" { print $3 }' records | sed -n 2p)
  says blob 127.0.0.1:5000/group/a "$layer"
  is "sha256:$(sha256sum <said)" "$layer  -"
  bocker-pull manifest "$evil/good" >records
  layer=$(awk -F'\t' '$1 == "layer" { digest = $3 } END { print digest }' records)
  says blob "$evil/good" "$layer"
  says blob "$evil/redirect" "$layer"
  # Broken on the way, and put together again.
  for name in broken-twice broken-no-ranges; do
    bocker-pull blob "$evil/$name" "$layer" | cmp - said
  done
  wrong() {
    local status=0
    bocker-pull blob "$2" "$layer" >out 2>err || status=$?
    is "$status:$(wc -l <err)" 1:1 "$2"
    like "$(cat err)" "$1"
  }
  wrong "what came is sha256:" "$evil/wrong-digest"
  wrong "what came is sha256:" "$evil/too-long"
  wrong "what came is sha256:" "$evil/too-short"
  wrong "it ends after 1000 bytes: " "$evil/cut-unannounced"
  wrong "404 Not Found" "$evil/blob-404"
  fails 2 "'latest' is not a digest" bocker-pull blob "$evil/good" latest
  fails 2 "only sha256 digests are known here" bocker-pull blob "$evil/good" "sha512:$(printf '0%.0s' {1..128})"
  TERM=xterm script -qec "bocker-pull blob $evil/good $layer" terminal >/dev/null </dev/null || true
  like "$(cat terminal)" "stdout is a terminal"
}

test_pull_progress_for_a_program() {
  evil
  bocker-pull manifest "$evil/good" >records
  bocker-pull fetch --progress-fd 7 <records 7>lines >image.tar
  whole image.tar "--progress-fd"
  # Each blob begins with nothing and ends with all.
  awk -F'\t' '$1 == "config" || $1 == "layer" { print $3 "\t" 0 "\t" $4; print $3 "\t" $4 "\t" $4 }' records | sort >ends
  is "$(awk -F'\t' '$2 == 0 || $2 == $3' lines | sort)" "$(cat ends)"
  is "$(awk -F'\t' 'NF != 3 || $2 > $3' lines)" ""
  # A pipe, a reader that goes, a descriptor that is not there.
  { bocker-pull fetch --progress-fd 7 <records 7>&1 >image.tar | cat >lines; }
  is "$(awk -F'\t' '$2 == 0 || $2 == $3' lines | sort)" "$(cat ends)"
  { bocker-pull fetch --progress-fd 7 <records 7>&1 >image.tar | true; }
  whole image.tar "a reader that went"
  fails 1 "write progress to descriptor 9: No such file" sh -c "bocker-pull fetch --progress-fd 9 <records >image.tar"
  fails 2 "'x' is not the number of a descriptor" sh -c "bocker-pull fetch --progress-fd x >image.tar"
}
