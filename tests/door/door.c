/*
 * A PKCS#11 module that is another one, in another process's house: the first call enters the mount and IPC namespaces
 * of the process DOOR_PID, for good, and every function is then that of DOOR_MODULE.
 *
 * It is for modules whose state belongs to the whole machine (opencryptoki): a lane's process goes in by itself, its
 * parent stays where it is, and there may be several houses. Never on in doubt: what cannot be done ends the process.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static unsigned long (*list_of)(void **);

static void stuck(const char *what, const char *why) {
  fprintf(stderr, "door: %s: %s\n", what, why);
  abort();
}

static const char *given(const char *name) {
  const char *value = getenv(name);
  if (!value) stuck(name, "not set");
  return value;
}

unsigned long C_GetFunctionList(void **list) {
  if (!list_of) {
    int house = (int)syscall(SYS_pidfd_open, atoi(given("DOOR_PID")), 0);
    if (house < 0) stuck("DOOR_PID", strerror(errno));
    /* Needs a process with one thread, which a lane is, and CAP_SYS_ADMIN. */
    if (setns(house, CLONE_NEWNS | CLONE_NEWIPC)) stuck("setns", strerror(errno));
    close(house);
    void *module = dlopen(given("DOOR_MODULE"), RTLD_NOW | RTLD_LOCAL);
    if (!module) stuck("DOOR_MODULE", dlerror());
    *(void **)&list_of = dlsym(module, "C_GetFunctionList");
    if (!list_of) stuck("DOOR_MODULE", dlerror());
  }
  return list_of(list);
}
