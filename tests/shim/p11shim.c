/* A PKCS#11 module that stands in front of another one, logs its calls and follows a script.
 *
 * The tests take every count from this log, so anything that would make it incomplete (a script that cannot
 * be read, a log that cannot be written) ends the process: a loud death cannot be mistaken for a pass.
 * README.md, beside this file, has the script language and the format of the log. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long ULONG, RV;  /* CK_ULONG: 64 bits on the one platform this is for */
typedef unsigned char BYTE;
typedef struct { ULONG type; void *value; ULONG length; } ATTRIBUTE;
typedef struct { ULONG mechanism; void *parameter; ULONG length; } MECHANISM;
typedef void (*FUNCTION)(void);
typedef RV (*GET_ATTRIBUTE_VALUE)(ULONG session, ULONG object, ATTRIBUTE *list, ULONG count);
typedef RV (*SIGN)(ULONG session, BYTE *data, ULONG length, BYTE *out, ULONG *out_length);
typedef RV (*SIGN_FINAL)(ULONG session, BYTE *out, ULONG *out_length);
typedef RV (*GET_SLOT_LIST)(BYTE present, ULONG *list, ULONG *count);
typedef RV (*FIND_INIT)(ULONG session, ATTRIBUTE *list, ULONG count);
typedef RV (*FIND)(ULONG session, ULONG *objects, ULONG most, ULONG *count);
typedef RV (*FIND_FINAL)(ULONG session);
typedef RV (*GET_TOKEN_INFO)(ULONG slot, void *info);
enum { FUNCTIONS_IN_LIST = 68, C_GET_FUNCTION_LIST = 3, C_GET_SLOT_LIST = 4, C_GET_TOKEN_INFO = 6,
       C_GET_ATTRIBUTE_VALUE = 24, C_FIND_OBJECTS_INIT = 26, C_FIND_OBJECTS = 27, C_FIND_OBJECTS_FINAL = 28,
       C_SIGN = 43, C_SIGN_FINAL = 45 };
typedef struct { BYTE major, minor; FUNCTION at[FUNCTIONS_IN_LIST]; } FUNCTION_LIST;
enum { OK = 0, HOST_MEMORY = 2, SLOT_ID_INVALID = 3, GENERAL_ERROR = 5, FUNCTION_FAILED = 6, ARGUMENTS_BAD = 7,
       PIN_INCORRECT = 0xA0, PIN_LOCKED = 0xA4, SESSION_HANDLE_INVALID = 0xB3, BUFFER_TOO_SMALL = 0x150 };
enum { CKO_PRIVATE_KEY = 3, CKA_CLASS = 0, CKA_ID = 0x102, CKA_MODULUS = 0x120, CKA_EC_POINT = 0x181, CKU_SO = 0 };
/* CK_TOKEN_INFO begins with texts padded with spaces: label, manufacturer, model, serial; then come the flags. */
enum { LABEL = 32, SERIAL_AT = 80, SERIAL = 16, FLAGS_AT = 96, TOKEN_INFO = 256 };
enum { PAD_FLAG = 0x100, COUNT_LOW = 0x10000, FINAL_TRY = 0x20000, LOCKED = 0x40000 };

enum { LOGGED = 1, FORGETS_KEYS = 2, OUTPUT = 4 };
enum { DATA_LOGGED = 4096, KEY_ID = 64, RULES = 256, EDITS = 8, SLOTS = 256, SESSIONS = 4096 };

/* Everything that is wrapped: name, place in the function list, what is special, parameters, arguments, and
 * the statements that note what log and script need.  To wrap one more function, add one line. */
#define WRAPPED(X) \
  X(C_Initialize, 0, LOGGED | FORGETS_KEYS, (void *a), (a), ) \
  X(C_Finalize, 1, LOGGED | FORGETS_KEYS, (void *a), (a), ) \
  X(C_GetInfo, 2, 0, (void *info), (info), ) \
  X(C_GetSlotList, 4, 0, (BYTE present, ULONG *list, ULONG *count), (present, list, count), \
    c.found = count; c.slots = list; c.present = present; c.room = ROOM(count)) \
  X(C_GetSlotInfo, 5, 0, (ULONG slot, void *info), (slot, info), c.slot = &slot) \
  X(C_GetTokenInfo, 6, 0, (ULONG slot, void *info), (slot, info), c.slot = &slot; c.token_info = info) \
  X(C_GetMechanismList, 7, 0, (ULONG slot, ULONG *list, ULONG *count), (slot, list, count), c.slot = &slot) \
  X(C_GetMechanismInfo, 8, 0, (ULONG slot, ULONG type, void *info), (slot, type, info), c.slot = &slot) \
  X(C_InitToken, 9, 0, (ULONG slot, BYTE *pin, ULONG length, BYTE *label), (slot, pin, length, label), \
    c.slot = &slot) \
  X(C_InitPIN, 10, 0, (ULONG session, BYTE *pin, ULONG length), (session, pin, length), c.session = &session) \
  X(C_SetPIN, 11, 0, (ULONG session, BYTE *old, ULONG old_length, BYTE *pin, ULONG length), \
    (session, old, old_length, pin, length), c.session = &session) \
  X(C_OpenSession, 12, LOGGED, (ULONG slot, ULONG flags, void *app, void *notify, ULONG *session), \
    (slot, flags, app, notify, session), c.slot = &slot; c.opened = session) \
  X(C_CloseSession, 13, LOGGED | FORGETS_KEYS, (ULONG session), (session), c.session = &session) \
  X(C_CloseAllSessions, 14, LOGGED | FORGETS_KEYS, (ULONG slot), (slot), c.slot = &slot) \
  X(C_GetSessionInfo, 15, 0, (ULONG session, void *info), (session, info), c.session = &session) \
  X(C_Login, 18, LOGGED | FORGETS_KEYS, (ULONG session, ULONG user, BYTE *pin, ULONG length), \
    (session, user, pin, length), c.session = &session; c.user = &user; c.pin_length = length; c.pin = &pin; c.pin_room = &length) \
  X(C_Logout, 19, LOGGED | FORGETS_KEYS, (ULONG session), (session), c.session = &session) \
  X(C_CreateObject, 20, 0, (ULONG session, void *list, ULONG count, ULONG *object), (session, list, count, object), \
    c.session = &session) \
  X(C_CopyObject, 21, 0, (ULONG session, ULONG object, void *list, ULONG count, ULONG *copy), \
    (session, object, list, count, copy), c.session = &session) \
  X(C_DestroyObject, 22, FORGETS_KEYS, (ULONG session, ULONG object), (session, object), c.session = &session) \
  X(C_GetAttributeValue, 24, 0, (ULONG session, ULONG object, ATTRIBUTE *list, ULONG count), \
    (session, object, list, count), c.session = &session; c.attributes = list; c.attribute_count = count) \
  X(C_SetAttributeValue, 25, FORGETS_KEYS, (ULONG session, ULONG object, void *list, ULONG count), \
    (session, object, list, count), c.session = &session) \
  X(C_FindObjectsInit, 26, 0, (ULONG session, void *list, ULONG count), (session, list, count), \
    c.session = &session) \
  X(C_FindObjects, 27, 0, (ULONG session, ULONG *objects, ULONG most, ULONG *count), (session, objects, most, count), \
    c.session = &session; c.found = count) \
  X(C_FindObjectsFinal, 28, 0, (ULONG session), (session), c.session = &session) \
  X(C_EncryptInit, 29, 0, BEGINS) \
  X(C_Encrypt, 30, 0, CONVERTS) \
  X(C_EncryptUpdate, 31, 0, CONVERTS) \
  X(C_EncryptFinal, 32, 0, ENDS) \
  X(C_DecryptInit, 33, 0, BEGINS) \
  X(C_Decrypt, 34, 0, CONVERTS) \
  X(C_DecryptUpdate, 35, 0, CONVERTS) \
  X(C_DecryptFinal, 36, 0, ENDS) \
  X(C_DigestInit, 37, 0, (ULONG session, void *mechanism), (session, mechanism), c.session = &session) \
  X(C_Digest, 38, 0, CONVERTS) \
  X(C_DigestUpdate, 39, 0, TAKES) \
  X(C_DigestKey, 40, 0, (ULONG session, ULONG key), (session, key), c.session = &session) \
  X(C_DigestFinal, 41, 0, ENDS) \
  X(C_SignInit, 42, 0, (ULONG session, MECHANISM *mechanism, ULONG key), (session, mechanism, key), \
    c.session = &session; c.mechanism = mechanism; c.key = key; c.signing_key = &key) \
  X(C_Sign, 43, LOGGED | OUTPUT, (ULONG session, BYTE *data, ULONG length, BYTE *out, ULONG *out_length), \
    (session, data, length, out, out_length), c.session = &session; c.data = data; c.data_length = length; \
    c.out = out; c.out_length = out_length; c.room = ROOM(out_length); c.query = out == NULL) \
  X(C_SignUpdate, 44, 0, TAKES) \
  X(C_SignFinal, 45, LOGGED | OUTPUT, (ULONG session, BYTE *out, ULONG *out_length), (session, out, out_length), \
    c.session = &session; c.out = out; c.out_length = out_length; c.room = ROOM(out_length); c.query = out == NULL) \
  X(C_VerifyInit, 48, 0, BEGINS) \
  X(C_Verify, 49, 0, (ULONG session, BYTE *data, ULONG length, BYTE *signature, ULONG signature_length), \
    (session, data, length, signature, signature_length), c.session = &session) \
  X(C_VerifyUpdate, 50, 0, TAKES) \
  X(C_VerifyFinal, 51, 0, TAKES) \
  X(C_GenerateKey, 58, 0, (ULONG session, void *mechanism, void *list, ULONG count, ULONG *key), \
    (session, mechanism, list, count, key), c.session = &session) \
  X(C_GenerateKeyPair, 59, 0, (ULONG session, void *mechanism, void *public_list, ULONG public_count, \
    void *private_list, ULONG private_count, ULONG *public_key, ULONG *private_key), \
    (session, mechanism, public_list, public_count, private_list, private_count, public_key, private_key), \
    c.session = &session) \
  X(C_WrapKey, 60, 0, (ULONG session, void *mechanism, ULONG by, ULONG key, BYTE *out, ULONG *out_length), \
    (session, mechanism, by, key, out, out_length), c.session = &session) \
  X(C_UnwrapKey, 61, 0, (ULONG session, void *mechanism, ULONG by, BYTE *wrapped, ULONG length, void *list, \
    ULONG count, ULONG *key), (session, mechanism, by, wrapped, length, list, count, key), c.session = &session) \
  X(C_DeriveKey, 62, 0, (ULONG session, void *mechanism, ULONG base, void *list, ULONG count, ULONG *key), \
    (session, mechanism, base, list, count, key), c.session = &session) \
  X(C_SeedRandom, 63, 0, TAKES) \
  X(C_GenerateRandom, 64, OUTPUT, (ULONG session, BYTE *out, ULONG length), (session, out, length), \
    c.session = &session; c.out = out; c.out_length = &length) \
  X(C_WaitForSlotEvent, 67, 0, (ULONG flags, ULONG *slot, void *reserved), (flags, slot, reserved), )
/* Parameters that several functions have in common. */
#define BEGINS (ULONG session, void *mechanism, ULONG key), (session, mechanism, key), c.session = &session
#define TAKES (ULONG session, BYTE *data, ULONG length), (session, data, length), c.session = &session
#define ENDS (ULONG session, BYTE *out, ULONG *out_length), (session, out, out_length), c.session = &session
#define ROOM(length) ((length) ? *(length) : 0)
#define CONVERTS (ULONG session, BYTE *in, ULONG length, BYTE *out, ULONG *out_length), \
  (session, in, length, out, out_length), c.session = &session

#define AS_ID(name, ...) F_##name,
#define AS_NAME(name, ...) #name,
#define AS_TRAITS(name, place, traits, ...) traits,
enum { WRAPPED(AS_ID) WRAPPED_COUNT, WRONG_PINS = WRAPPED_COUNT, COUNTERS };
static const char *const names[] = { WRAPPED(AS_NAME) };
static const int traits[] = { WRAPPED(AS_TRAITS) };

/* To LEAK_FILES what comes before the call, from TRIES to REKEY what becomes of it and its answer: they all go on. */
enum action { NONE, DELAY, DELAY_NORMAL, NOISE, FORK, LOG, SWAP, LEAK_MEMORY, LEAK_FILES, TRIES, WRONG, PIN_FLAGS, AS_LABEL,
              AS_SERIAL, OTHER_KEY, REKEY, PAD, TYPED, TERMINAL, HANG = TERMINAL, HOLD, RETURN, AFTER, CRASH, CRASH_AFTER, ABORT,
              EXIT, CORRUPT, SHORT, LONG, ZERO, ABSENT, VANISH };
static const char *const actions[] = { "", "delay", "delay-normal", "noise", "fork", "log", "swap",
  "leak-memory", "leak-files", "tries", "wrong",
  "pin-flags", "label", "serial", "other-key", "rekey", "pad", "typed", "hang", "hold", "return", "after", "crash", "crash-after",
  "abort", "exit", "corrupt", "short", "long", "zero", "absent", "vanish" };

struct rule {
  int function; char on[LABEL + 1]; uint64_t from, to, every;
  enum action action; double seconds, sigma; ULONG number; bool is_count; char *text;
};
struct edit { enum action action; ULONG number; bool is_count; char text[LABEL + 1]; };
struct call {
  int function; uint64_t n; bool query, logged;
  ULONG *session, *opened, *slot, *slots, *found, *user, *signing_key, *out_length, *pin_room;
  ULONG pin_length, key, data_length, room;
  MECHANISM *mechanism; ATTRIBUTE *attributes; ULONG attribute_count; BYTE *data, *out, *token_info, **pin, present;
  char token[LABEL + 1];  /* of a login: whose */
  char id[2 * KEY_ID + 1]; ULONG mech; bool signing;  /* the operation this C_Sign belongs to */
  double delay; pid_t child; struct rule end;          /* what the script says about this call */
  struct edit edits[EDITS]; int edit_count;
};
/* The numbers, shared by every process with the same P11SHIM_STATE; the names make the file tell its meaning. */
struct counter { char name[24]; _Atomic uint64_t calls; };
struct operation { ULONG session, mech; char id[2 * KEY_ID + 1]; bool active; };
struct known_key { ULONG handle; char id[2 * KEY_ID + 1]; };
struct known_slot { ULONG slot; char label[LABEL + 1]; bool vanished, swapped; ULONG has; };  /* the token of slot `has` */
struct known_session { ULONG session, slot; bool dead; };

RV C_GetFunctionList(FUNCTION_LIST **answer);
static FUNCTION_LIST *real, list;
static const char *log_path, *script_path, *seed;
static struct counter *counters;
static bool numbers_shared;
static pid_t process;  /* the process that numbers, keys and operations belong to: another one after fork() */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES];
static int rule_count;
static struct stat script_seen;
static struct operation *operations;
static struct known_key *keys;
static size_t operation_count, key_count;
static struct known_slot slots[SLOTS];
static struct known_session sessions[SESSIONS];
static size_t slot_count, session_count;

static void lock(void) { pthread_mutex_lock(&mutex); }
static void unlock(void) { pthread_mutex_unlock(&mutex); }

__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  if (length > (int)sizeof line - 2) length = sizeof line - 2;
  line[length] = '\n';
  if (write(2, line, length + 1) < 0) { /* nobody to tell */ }
  abort();
}

/* ---- script ---------------------------------------------------------------------------------------------- */

static char *word(char **rest) {
  char *start = *rest + strspn(*rest, " \t\r"), *end = start + strcspn(start, " \t\r");
  *rest = *end ? end + 1 : end;
  *end = 0;
  return start;
}

static bool whole(const char *text, char **end, uint64_t *value) {
  if (!isdigit((unsigned char)*text)) return false;
  errno = 0;
  *value = strtoull(text, end, 10);
  return errno == 0;
}

/* By hand, because strtod() follows the locale of whatever program loaded us. */
static bool decimal(const char *text, double *value) {
  double unit = 1;
  bool digits = false, point = false;
  for (*value = 0; *text; text++) {
    if (*text == '.' && !point) { point = true; continue; }
    if (!isdigit((unsigned char)*text)) return false;
    digits = true;
    if (point) *value += (*text - '0') * (unit /= 10);
    else *value = *value * 10 + (*text - '0');
  }
  return digits && *value < 1e6;
}

static bool hexadecimal(const char *text, ULONG *value) {
  char *end;
  if (strncmp(text, "0x", 2) || !isxdigit((unsigned char)text[2])) return false;
  errno = 0;
  *value = strtoul(text, &end, 16);
  return errno == 0 && !*end;
}

static bool parse_which(char *text, struct rule *rule) {
  char *end;
  rule->from = 1, rule->to = UINT64_MAX, rule->every = 1;
  if (!strcmp(text, "*")) return true;
  if (*text == '%') return whole(text + 1, &end, &rule->every) && !*end && rule->every > 0;
  if (!whole(text, &end, &rule->from) || rule->from == 0) return false;
  if (!strcmp(end, "+")) return true;
  if (*end == '-') return whole(end + 1, &end, &rule->to) && !*end && rule->to >= rule->from;
  rule->to = rule->from;
  return !*end;
}

static bool parse_argument(struct rule *rule, char **rest) {
  char *end, *text;
  uint64_t number;
  switch (rule->action) {
    case DELAY: case HANG: case HOLD: return decimal(word(rest), &rule->seconds);
    case DELAY_NORMAL: return decimal(word(rest), &rule->seconds) && decimal(word(rest), &rule->sigma);
    case RETURN: case AFTER: return hexadecimal(word(rest), &rule->number);
    case EXIT:
      if (!whole(word(rest), &end, &number) || *end || number > 255) return false;
      rule->number = number;
      return true;
    case NOISE:  /* the rest of the line, a '#' included */
      text = *rest + strspn(*rest, " \t");
      *rest += strlen(*rest);
      return *text && (rule->text = strdup(text));
    case LEAK_MEMORY: case LEAK_FILES:
      rule->is_count = whole(word(rest), &end, &number) && !*end && number > 0;
      rule->number = number;
      return rule->is_count;
    case TRIES: case VANISH: case LONG:
      if (!whole(word(rest), &end, &number) || *end || number == 0) return false;
      rule->number = number;
      if (rule->action == LONG) return rule->function == F_C_Sign || rule->function == F_C_SignFinal;
      return rule->function == (rule->action == TRIES ? F_C_Login : F_C_GetSlotList);
    case WRONG: return rule->function == F_C_Login && hexadecimal(word(rest), &rule->number);
    case PIN_FLAGS:  /* those that a token with so many tries shows, or, in hexadecimal, always these */
      text = word(rest);
      if (rule->function != F_C_GetTokenInfo) return false;
      if (hexadecimal(text, &rule->number)) return !(rule->number & ~(ULONG)(COUNT_LOW | FINAL_TRY | LOCKED));
      rule->is_count = whole(text, &end, &number) && !*end && number > 0;
      rule->number = number;
      return rule->is_count;
    case AS_LABEL: case AS_SERIAL:
      text = word(rest);
      return rule->function == F_C_GetTokenInfo && *text &&
             strlen(text) <= (rule->action == AS_LABEL ? LABEL : SERIAL) && (rule->text = strdup(text));
    case PAD: return rule->function == F_C_GetTokenInfo;
    case TYPED:
      text = word(rest);
      return rule->function == F_C_Login && *text && strlen(text) <= LABEL && (rule->text = strdup(text));
    case OTHER_KEY:
      text = word(rest);
      return rule->function == F_C_SignInit && strlen(text) == strspn(text, "0123456789abcdef") && *text &&
             strlen(text) % 2 == 0 && strlen(text) <= LABEL && (rule->text = strdup(text));
    case REKEY: return rule->function == F_C_GetAttributeValue;
    case SWAP:
      text = word(rest);
      return *rule->on && *text && strlen(text) <= LABEL && (rule->text = strdup(text));
    case CORRUPT: case ZERO: return traits[rule->function] & OUTPUT;
    case SHORT: return rule->function == F_C_Sign || rule->function == F_C_SignFinal;
    case ABSENT: return rule->function == F_C_GetSlotList || rule->function == F_C_FindObjects;
    default: return true;
  }
}

/* The label of the token that a rule is for. */
static bool parse_on(const char *label, struct rule *rule) {
  switch (rule->function) {
    case F_C_Initialize: case F_C_Finalize: case F_C_GetInfo: case F_C_GetSlotList: case F_C_WaitForSlotEvent:
      return false;  /* of no one token */
  }
  return *label && snprintf(rule->on, sizeof rule->on, "%s", label) < (int)sizeof rule->on;
}

static void parse_line(const char *line, int number) {
  char *copy = strdup(line), *rest = copy, *name = word(&rest);
  if (*name && *name != '#') {
    struct rule rule = { .function = -1 };
    char *on = strchr(name, '@');
    if (on) *on++ = 0;
    for (int i = 0; i < WRAPPED_COUNT; i++) if (!strcmp(name, names[i])) rule.function = i;
    bool good = rule.function >= 0 && rule_count < RULES && (!on || parse_on(on, &rule)) &&
                parse_which(word(&rest), &rule);
    char *action = word(&rest);
    for (int i = 1; i < (int)(sizeof actions / sizeof *actions); i++)
      if (!strcmp(action, actions[i])) rule.action = i;
    good = good && rule.action != NONE && parse_argument(&rule, &rest);
    char *more = word(&rest);
    if (!good || (*more && *more != '#')) die("p11shim: %s, line %d is not a rule: %s", script_path, number, line);
    rules[rule_count++] = rule;
  }
  free(copy);
}

static bool same_script(const struct stat *now, const struct stat *seen) {
  return now->st_ino == seen->st_ino && now->st_size == seen->st_size && now->st_mtim.tv_sec == seen->st_mtim.tv_sec &&
         now->st_mtim.tv_nsec == seen->st_mtim.tv_nsec;
}

static void read_script(void) {
  struct stat now;
  if (stat(script_path, &now) < 0) {
    /* Only a missing file means "no rules"; one that may not be read would be a rule not followed. */
    if (errno != ENOENT) die("p11shim: %s: %s", script_path, strerror(errno));
    memset(&now, 0, sizeof now);
  } else if (same_script(&now, &script_seen)) return;
  while (rule_count) free(rules[--rule_count].text);
  script_seen = now;
  if (now.st_ino == 0) return;
  int fd = open(script_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) { memset(&script_seen, 0, sizeof now); return; }
  /* Of the file that was opened, which a rename may have made another than the one looked at above. */
  if (fd < 0 || fstat(fd, &script_seen) < 0) die("p11shim: %s: %s", script_path, strerror(errno));
  char *text = calloc(1, script_seen.st_size + 1), *rest = text, *line;
  if (!text || read(fd, text, script_seen.st_size) != script_seen.st_size) die("p11shim: %s: short read", script_path);
  close(fd);
  for (int number = 1; (line = strsep(&rest, "\n")); number++) parse_line(line, number);
  free(text);
}

/* Normal by Box and Muller.  A function of seed, function and number, so that a run with a given seed repeats
 * itself however its calls fall on processes. */
static double normal(double median, double sigma, const struct call *c) {
  uint64_t start = seed ? strtoull(seed, NULL, 10) : (uint64_t)getpid();
  uint64_t state = start * 0x9e3779b97f4a7c15 + c->n * 1000003 + c->function;
  double uniform[2];
  for (int i = 0; i < 2; i++) {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    uniform[i] = (((z ^ (z >> 31)) >> 11) + 1) * 0x1p-53;  /* never 0, whose logarithm has no end */
  }
  double drawn = median + sigma * sqrt(-2 * log(uniform[0])) * cos(2 * M_PI * uniform[1]);
  return drawn > 0 ? drawn : 0;
}

static void pause_for(double seconds) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  uint64_t end = until.tv_sec * 1000000000ull + until.tv_nsec + (uint64_t)(seconds * 1e9);
  until.tv_sec = end / 1000000000, until.tv_nsec = end % 1000000000;
  /* To an absolute time: a signal must not shorten a pause. */
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) continue;
}

/* Until there is another script, or none. */
static void hold(const struct stat *seen, double seconds) {
  struct stat now;
  for (; seconds > 0 && stat(script_path, &now) == 0 && same_script(&now, seen); seconds -= 0.002) pause_for(0.002);
}

/* ---- log ------------------------------------------------------------------------------------------------- */

/* A file that processes of several users write to. */
static int open_shared(const char *path, int flags) {
  /* First without O_CREAT, which some kernels refuse for another user's file in a sticky directory. */
  int fd = open(path, flags | O_CLOEXEC);
  if (fd >= 0 || errno != ENOENT) return fd;
  fd = open(path, flags | O_CLOEXEC | O_CREAT, 0666);
  if (fd >= 0) fchmod(fd, 0666);  /* whatever the umask; fails only where another user was faster */
  return fd;
}

static int log_file(void) {
  static int fd = -1;
  static struct stat opened;
  struct stat now;
  /* The host may have closed our descriptor, and got its number for another file of its own since. */
  if (fd >= 0 && fstat(fd, &now) == 0 && now.st_ino == opened.st_ino && now.st_dev == opened.st_dev && now.st_nlink)
    return fd;
  fd = open_shared(log_path, O_WRONLY | O_APPEND);
  if (fd < 0 || fstat(fd, &opened) < 0) die("p11shim: %s: %s", log_path, strerror(errno));
  return fd;
}

static void write_log(const struct call *c, const RV *rv) {
  char line[2 * DATA_LOGGED + 1024], *p = line;
  struct timespec now;
  if (!log_path) return;
  clock_gettime(CLOCK_MONOTONIC, &now);
  p += sprintf(p, "{\"t\":%llu,\"pid\":%d,\"fn\":\"%s\",\"ev\":\"%s\",\"n\":%llu",
               now.tv_sec * 1000000000ull + now.tv_nsec, getpid(), names[c->function],
               rv ? "leave" : "enter", (unsigned long long)c->n);
  if (c->session) p += sprintf(p, ",\"session\":%lu", *c->session);
  if (c->opened && rv && *rv == OK) p += sprintf(p, ",\"session\":%lu", *c->opened);
  if (c->user) p += sprintf(p, ",\"user\":%lu,\"pinlen\":%lu,\"token\":\"%s\"", *c->user, c->pin_length, c->token);
  if (c->signing) p += sprintf(p, ",\"key\":\"%s\",\"mech\":%lu", c->id, c->mech);
  if (c->function == F_C_Sign) {
    p += sprintf(p, ",\"datalen\":%lu,\"data\":\"", c->data_length);
    for (ULONG i = 0; c->data && i < c->data_length && i < DATA_LOGGED; i++) {
      *p++ = "0123456789abcdef"[c->data[i] >> 4];
      *p++ = "0123456789abcdef"[c->data[i] & 15];
    }
    *p++ = '"';
  }
  if (c->query) p += sprintf(p, ",\"query\":true");
  if (c->end.action) p += sprintf(p, ",\"act\":\"%s\"", actions[c->end.action]);
  if (c->child) p += sprintf(p, ",\"child\":%d", c->child);
  if (rv) p += sprintf(p, ",\"rv\":%lu", *rv);
  if (rv && c->out_length) p += sprintf(p, ",\"len\":%lu", *c->out_length);
  p += sprintf(p, "}\n");
  /* One write(2) to an O_APPEND file: lines of several processes do not mix. */
  ssize_t written;
  do written = write(log_file(), line, p - line); while (written < 0 && errno == EINTR);
  if (written != p - line) die("p11shim: %s: a line could not be written", log_path);
}

/* ---- numbers, keys, operations --------------------------------------------------------------------------- */

static void map_counters(void) {
  const char *path = getenv("P11SHIM_STATE");
  size_t size = COUNTERS * sizeof *counters;
  numbers_shared = path;
  int fd = -1;
  if (path) {
    fd = open_shared(path, O_RDWR);
    if (fd < 0 || ftruncate(fd, size) < 0) die("p11shim: %s: %s", path, strerror(errno));
  }
  counters = mmap(NULL, size, PROT_READ | PROT_WRITE, path ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
  if (counters == MAP_FAILED) die("p11shim: the numbers: %s", strerror(errno));
  if (fd >= 0) close(fd);
  for (int i = 0; i < COUNTERS; i++) {
    const char *name = i == WRONG_PINS ? "wrong PINs" : names[i];
    if (*counters[i].name && strcmp(counters[i].name, name)) die("p11shim: %s: of another shim", path);
    strcpy(counters[i].name, name);
  }
}

static void notice_fork(void) {
  if (process == getpid()) return;
  if (process && !numbers_shared)
    for (int i = 0; i < COUNTERS; i++) counters[i].calls = 0;
  process = getpid();
  operation_count = 0;
  key_count = 0;
  slot_count = session_count = 0;
}

static struct operation *operation_of(ULONG session) {
  for (size_t i = 0; i < operation_count; i++) if (operations[i].session == session) return &operations[i];
  return NULL;
}

static void set_operation(const struct call *c) {
  struct operation *o = operation_of(*c->session);
  if (!o) {
    operations = realloc(operations, (operation_count + 1) * sizeof *operations);
    if (!operations) die("p11shim: out of memory");
    o = &operations[operation_count++];
  }
  *o = (struct operation){ *c->session, c->mechanism->mechanism, "", true };
  memcpy(o->id, c->id, sizeof o->id);
}

/* The key's CKA_ID, asked before the real C_SignInit: no operation of the session is disturbed by it. */
static void find_key(struct call *c) {
  lock();
  for (size_t i = 0; i < key_count; i++)
    if (keys[i].handle == c->key) { memcpy(c->id, keys[i].id, sizeof c->id); unlock(); return; }
  unlock();
  BYTE id[KEY_ID];
  ATTRIBUTE attribute = { CKA_ID, id, sizeof id };
  GET_ATTRIBUTE_VALUE get = (GET_ATTRIBUTE_VALUE)real->at[C_GET_ATTRIBUTE_VALUE];
  if (get(*c->session, c->key, &attribute, 1) != OK || attribute.length > sizeof id) return;
  for (ULONG i = 0; i < attribute.length; i++) sprintf(c->id + 2 * i, "%02x", id[i]);
  lock();
  keys = realloc(keys, (key_count + 1) * sizeof *keys);
  if (!keys) die("p11shim: out of memory");
  keys[key_count].handle = c->key;
  memcpy(keys[key_count++].id, c->id, sizeof c->id);
  unlock();
}

/* What is known of slots; to be called with the lock held. */
static struct known_slot *slot_of(ULONG slot) {
  for (size_t i = 0; i < slot_count; i++) if (slots[i].slot == slot) return &slots[i];
  return NULL;
}

static struct known_slot *new_slot(ULONG slot) {
  if (slot_count == SLOTS) die("p11shim: more than %d slots", SLOTS);
  slots[slot_count] = (struct known_slot){ .slot = slot };
  return &slots[slot_count++];
}

/* It stays known when the token is gone. */
static const char *label_of(ULONG slot) {
  struct known_slot *known = slot_of(slot);
  char info[TOKEN_INFO];
  if (known && *known->label) return known->label;
  if (((GET_TOKEN_INFO)real->at[C_GET_TOKEN_INFO])(slot, info) != OK) return "";
  if (!known) known = new_slot(slot);
  size_t length = LABEL;
  while (length && info[length - 1] == ' ') length--;
  memcpy(known->label, info, length);
  return known->label;
}

static struct known_session *session_of(ULONG session) {
  for (size_t i = 0; i < session_count; i++) if (sessions[i].session == session) return &sessions[i];
  return NULL;
}

/* Whether a call is about the token of this label. */
static bool is_on(const struct call *c, const char *label) {
  if (c->slot) return !strcmp(label_of(*c->slot), label);
  const struct known_session *in = session_of(*c->session);
  return in && !strcmp(label_of(in->slot), label);
}

/* The token is taken out of the slot that the call is about, with which its sessions end, and the one with this label is
 * put in. */
static void swap(const struct call *c, const char *label) {
  const ULONG slot = c->slot ? *c->slot : session_of(*c->session)->slot;
  struct known_slot *known = slot_of(slot);
  ULONG all[SLOTS], found = SLOTS;
  if (known->swapped) return;
  if (((GET_SLOT_LIST)real->at[C_GET_SLOT_LIST])(1, all, &found) != OK) die("p11shim: no slots to swap tokens");
  for (ULONG i = 0; i < found; i++) if (!strcmp(label_of(all[i]), label)) known->swapped = true, known->has = all[i];
  if (!known->swapped) die("p11shim: there is no token %s to put in", label);
  for (size_t i = 0; i < session_count; i++) if (sessions[i].slot == slot) sessions[i].dead = true;
}

static void note_sessions(const struct call *c, RV rv) {
  size_t kept = 0;
  if (c->function == F_C_OpenSession && rv == OK) {
    if (session_count == SESSIONS) die("p11shim: more than %d sessions", SESSIONS);
    sessions[session_count++] = (struct known_session){ *c->opened, *c->slot, false };
  }
  if (c->function == F_C_CloseSession || c->function == F_C_CloseAllSessions) {
    for (size_t i = 0; i < session_count; i++) {
      bool closed = c->slot ? sessions[i].slot == *c->slot : sessions[i].session == *c->session;
      if (!closed) sessions[kept++] = sessions[i];
    }
    session_count = kept;
  }
  if (c->function == F_C_Initialize || c->function == F_C_Finalize) slot_count = session_count = 0;
}

/* After a scripted answer the caller holds the operation for ended, as the standard says, but the real module does
 * not, and would refuse whatever the session begins next.  There is no call to cancel in PKCS#11 2.40. */
static void end_operation(ULONG session) {
  BYTE nothing[4096] = { 0 }, nowhere[4096];
  ULONG length = sizeof nowhere;
  if (((SIGN_FINAL)real->at[C_SIGN_FINAL])(session, nowhere, &length) == OK) return;
  /* Of one part only: then it ends by signing, over data too long for most mechanisms, to be thrown away. */
  length = sizeof nowhere;
  ((SIGN)real->at[C_SIGN])(session, nothing, sizeof nothing, nowhere, &length);
}

/* ---- the two halves of every wrapped call ---------------------------------------------------------------- */

static void crash(void) {
  raise(SIGSEGV);
  signal(SIGSEGV, SIG_DFL);  /* a handler of the host came back: a real crash would not let it */
  raise(SIGSEGV);
  abort();
}

/* The private key with this CKA_ID, in hex. */
static ULONG key_of(ULONG session, const char *hex) {
  BYTE id[LABEL / 2];
  ULONG class = CKO_PRIVATE_KEY, key, count = 0, length = strlen(hex) / 2;
  for (ULONG i = 0; i < length; i++) sscanf(hex + 2 * i, "%2hhx", &id[i]);
  ATTRIBUTE template[] = { { CKA_CLASS, &class, sizeof class }, { CKA_ID, id, length } };
  FIND_INIT init = (FIND_INIT)real->at[C_FIND_OBJECTS_INIT];
  FIND find = (FIND)real->at[C_FIND_OBJECTS];
  FIND_FINAL final = (FIND_FINAL)real->at[C_FIND_OBJECTS_FINAL];
  if (init(session, template, 2) != OK || find(session, &key, 1, &count) != OK || final(session) != OK || !count)
    die("p11shim: there is no private key with the CKA_ID %s", hex);
  return key;
}

/* Never given back; of memory only the addresses are used up, so that a limit of them is reached and the host is none
 * the poorer.  False: there is no more, and a driver would answer so. */
static bool leak_memory(ULONG bytes) {
  return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static bool leak_files(ULONG count) {
  while (count && open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0) count--;
  return !count;
}

/* Matches the rules, writes the enter line, does what comes before.  False: the real function is not called. */
static bool before(struct call *c, RV *rv) {
  bool forks = false;
  char *said[RULES];
  int says = 0;
  struct stat script;
  lock();
  notice_fork();
  c->logged = traits[c->function] & LOGGED;
  if (script_path) read_script();
  script = script_seen;
  if (c->function == F_C_Sign || c->function == F_C_SignFinal) {
    struct operation *o = operation_of(*c->session);
    if (o && o->active) c->signing = true, c->mech = o->mech, memcpy(c->id, o->id, sizeof c->id);
  }
  if (!c->query) {  /* a question for the length is no call of its own: no number, no rules */
    c->n = ++counters[c->function].calls;
    for (int i = 0; i < rule_count; i++) {
      const struct rule *r = &rules[i];
      if (r->function != c->function || c->n < r->from || c->n > r->to || c->n % r->every) continue;
      if (*r->on && !is_on(c, r->on)) continue;
      if (r->action == DELAY) c->delay += r->seconds;
      else if (r->action == DELAY_NORMAL) c->delay += normal(r->seconds, r->sigma, c);
      else if (r->action == NOISE) said[says++] = strdup(r->text);
      else if (r->action == FORK) forks = c->logged = true;
      else if (r->action == LOG) c->logged = true;
      else if (r->action == SWAP) swap(c, r->text);
      else if (r->action < TERMINAL) {
        if (c->edit_count == EDITS) die("p11shim: more than %d changes of one answer", EDITS);
        struct edit *edit = &c->edits[c->edit_count++];
        edit->action = r->action, edit->number = r->number, edit->is_count = r->is_count;
        if (r->text) strcpy(edit->text, r->text);
      }
      else if (!c->end.action) c->end = *r;
    }
  }
  const struct known_slot *known = c->slot ? slot_of(*c->slot) : NULL;
  const bool gone = known && known->vanished;
  if (known && known->swapped) *c->slot = known->has;
  const struct known_session *in = c->session ? session_of(*c->session) : NULL;
  const bool dead = in && in->dead;
  if (c->user && in) strcpy(c->token, label_of(in->slot));
  unlock();
  if (forks && (c->child = fork()) == 0) { pause_for(30); _exit(0); }
  if (c->child < 0) die("p11shim: fork: %s", strerror(errno));
  if (c->logged) write_log(c, NULL);
  for (int i = 0; i < says; i++) {
    dprintf(1, "%s\n", said[i]);
    free(said[i]);
  }
  if (c->delay > 0) pause_for(c->delay);
  if (c->end.action == HANG) pause_for(c->end.seconds);
  if (c->end.action == HOLD) hold(&script, c->end.seconds);
  if (c->end.action == CRASH) crash();
  if (c->end.action == ABORT) abort();
  if (c->end.action == EXIT) _exit(c->end.number);
  if (c->end.action == RETURN) { *rv = c->end.number; return false; }
  if (gone) { *rv = SLOT_ID_INVALID; return false; }
  if (dead) { *rv = SESSION_HANDLE_INVALID; return false; }
  for (int i = 0; i < c->edit_count; i++) {
    const struct edit *edit = &c->edits[i];
    const bool locked = edit->action == TRIES && *c->user != CKU_SO && counters[WRONG_PINS].calls >= edit->number;
    if (locked) { *rv = PIN_LOCKED; return false; }
    if (edit->action == OTHER_KEY) *c->signing_key = c->key = key_of(*c->session, edit->text);
    if (edit->action == LEAK_MEMORY && !leak_memory(edit->number)) { *rv = HOST_MEMORY; return false; }
    if (edit->action == LEAK_FILES && !leak_files(edit->number)) { *rv = FUNCTION_FAILED; return false; }
    if (edit->action == TYPED && !*c->pin) {  /* a caller with a PIN of his own has no need of the pad */
      *c->pin = (BYTE *)edit->text;
      *c->pin_room = strlen(edit->text);
    }
  }
  if (c->mechanism) find_key(c);
  return true;
}

static void set_text(BYTE *place, size_t size, const char *text) {
  memset(place, ' ', size);
  memcpy(place, text, strlen(text));
}

/* The flags of a token that has so many tries and tells the truth about them. */
static ULONG pin_flags(ULONG tries) {
  ULONG wrong = counters[WRONG_PINS].calls;
  return wrong >= tries ? LOCKED : wrong == 0 ? 0 : wrong == tries - 1 ? COUNT_LOW | FINAL_TRY : COUNT_LOW;
}

/* Changes a good answer as `edit` says; answers what the caller gets. */
static RV edited(const struct call *c, const struct edit *edit, RV rv) {
  if (edit->action == WRONG) return rv == PIN_INCORRECT ? edit->number : rv;
  if (rv != OK) return rv;
  if (edit->action == AS_LABEL) set_text(c->token_info, LABEL, edit->text);
  if (edit->action == AS_SERIAL) set_text(c->token_info + SERIAL_AT, SERIAL, edit->text);
  if (edit->action == PAD) {
    ULONG flags;
    memcpy(&flags, c->token_info + FLAGS_AT, sizeof flags);
    flags |= PAD_FLAG;
    memcpy(c->token_info + FLAGS_AT, &flags, sizeof flags);
  }
  if (edit->action == PIN_FLAGS) {
    ULONG flags;
    memcpy(&flags, c->token_info + FLAGS_AT, sizeof flags);
    flags &= ~(ULONG)(COUNT_LOW | FINAL_TRY | LOCKED);
    flags |= edit->is_count ? pin_flags(edit->number) : edit->number;
    memcpy(c->token_info + FLAGS_AT, &flags, sizeof flags);
  }
  for (ULONG i = 0; edit->action == REKEY && i < c->attribute_count; i++) {
    const ATTRIBUTE *a = &c->attributes[i];
    if ((a->type == CKA_MODULUS || a->type == CKA_EC_POINT) && a->value && a->length && a->length != (ULONG)-1)
      ((BYTE *)a->value)[a->length / 2] ^= 2;
  }
  return OK;
}

/* The last slots are not in the answer; where their numbers are known, nothing answers to them any more. */
static RV vanish(const struct call *c, ULONG count) {
  ULONG all[SLOTS], found = SLOTS;  /* the caller may have room for those that are left, and not for all */
  RV rv = ((GET_SLOT_LIST)real->at[C_GET_SLOT_LIST])(c->present, all, &found);
  if (rv != OK) return rv;
  const ULONG left = count < found ? found - count : 0;
  *c->found = left;
  if (!c->slots) return OK;
  if (left > c->room) return BUFFER_TOO_SMALL;
  memcpy(c->slots, all, left * sizeof *all);
  lock();
  for (ULONG i = left; i < found; i++) {
    struct known_slot *known = slot_of(all[i]);
    (known ? known : new_slot(all[i]))->vanished = true;
  }
  unlock();
  return OK;
}

/* What comes after the real call, or instead of it; writes the leave line. */
static RV after(struct call *c, RV rv, bool called) {
  const enum action action = c->end.action;
  const RV real_rv = rv;
  if (called && action == AFTER) rv = c->end.number;
  if (called && c->user && *c->user != CKU_SO) {  /* the token's own count, whatever it is made to answer */
    if (real_rv == OK) counters[WRONG_PINS].calls = 0;
    if (real_rv == PIN_INCORRECT) counters[WRONG_PINS].calls++;
  }
  if (called && c->function == F_C_InitPIN && real_rv == OK) counters[WRONG_PINS].calls = 0;
  if (called && action == CRASH_AFTER) crash();
  for (int i = 0; called && i < c->edit_count; i++) rv = edited(c, &c->edits[i], rv);
  if (action == ABSENT && c->found && (rv == OK || rv == BUFFER_TOO_SMALL)) *c->found = 0, rv = OK;
  if (action == VANISH && (rv == OK || rv == BUFFER_TOO_SMALL)) rv = vanish(c, c->end.number);
  if (rv == OK && c->out && c->out_length && *c->out_length) {
    if (action == CORRUPT) c->out[*c->out_length / 2] ^= 1;
    if (action == ZERO) memset(c->out, 0, *c->out_length);
    if (action == SHORT) --*c->out_length;
    if (action == LONG) {  /* a longer claim than there was room for, it may be, but nothing written past the room */
      const ULONG most = *c->out_length + c->end.number;
      for (ULONG i = *c->out_length; i < most && i < c->room; i++) c->out[i] = 0xA5;
      *c->out_length = most;
    }
  }
  lock();
  if (traits[c->function] & FORGETS_KEYS) key_count = 0;
  if (c->function == F_C_Initialize || c->function == F_C_Finalize) operation_count = 0;
  note_sessions(c, rv);
  struct operation *o = c->session ? operation_of(*c->session) : NULL;
  if (c->function == F_C_CloseSession && o) *o = operations[--operation_count];
  if (c->mechanism && rv == OK && called) set_operation(c);
  /* C_Sign ends the operation whatever it answers, but for a question or a buffer that is too short. */
  const bool ended = c->signing && !c->query && rv != BUFFER_TOO_SMALL;
  if (ended && o) o->active = false;
  unlock();
  if ((ended && (!called || real_rv == BUFFER_TOO_SMALL)) || (c->mechanism && called && real_rv == OK && rv != OK))
    end_operation(*c->session);
  if (c->logged) write_log(c, &rv);
  return rv;
}

#define DEFINE(...) DEFINE_ONE(__VA_ARGS__)  /* so that parameters in common are taken for several */
#define DEFINE_ONE(name, place, traits, parameters, arguments, ...)                  \
  static RV w_##name parameters {                                                \
    struct call c = { .function = F_##name };                                    \
    RV rv = OK;                                                                  \
    __VA_ARGS__;                                                                 \
    bool called = before(&c, &rv);                                               \
    if (called) rv = ((RV (*) parameters)real->at[place]) arguments;             \
    return after(&c, rv, called);                                                \
  }
WRAPPED(DEFINE)

/* The host may change its environment, and free what getenv() pointed to. */
static const char *own_copy(const char *name) {
  const char *value = getenv(name);
  return value ? strdup(value) : NULL;
}

static void load(void) {
  const char *path = getenv("P11SHIM_MODULE");
  /* Into its own scope: names of the real module must not meet those of the host. */
  void *module = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  RV (*get)(FUNCTION_LIST **) = NULL;
  if (module) *(void **)&get = dlsym(module, "C_GetFunctionList");
  FUNCTION_LIST *found = NULL;
  if (!get || get(&found) != OK || !found) {
    dprintf(2, "p11shim: P11SHIM_MODULE: %s\n", path ? module ? path : dlerror() : "not set");
    return;
  }
  log_path = own_copy("P11SHIM_LOG"), script_path = own_copy("P11SHIM_SCRIPT"), seed = own_copy("P11SHIM_SEED");
  map_counters();
  pthread_atfork(lock, unlock, unlock);  /* a child must not inherit a mutex another thread holds */
  list = *found;
  list.at[C_GET_FUNCTION_LIST] = (FUNCTION)C_GetFunctionList;
#define REPLACE(name, place, ...) list.at[place] = (FUNCTION)w_##name;
  WRAPPED(REPLACE)
  real = found;
}

/* The one name exported: callers find every function through the list, and C_* names of ours in a global scope
 * could be taken by the real module for its own. */
RV C_GetFunctionList(FUNCTION_LIST **answer) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  if (!answer) return ARGUMENTS_BAD;
  pthread_once(&once, load);
  *answer = real ? &list : NULL;
  return real ? OK : GENERAL_ERROR;
}
