/* The limit: C_SignInit and C_Sign in a loop, with nothing round them.
 *
 *   limit MODULE TOKEN-LABEL PIN-FILE {KEY-LABEL=rsa|ec|ed=SPKI-FILE}...
 *
 * One process is one lane: one session, one thread. It says "ready", then answers lines of standard input:
 *
 *   run KEY SECONDS VERIFY      ->  COUNT SECONDS CPU-SECONDS     (VERIFY 1: one OpenSSL verify behind each signature)
 *   time KEY COUNT              ->  MEDIAN-US P99-US              (of single signatures)
 *
 * RSA signs the DigestInfo of a SHA-256 digest by CKM_RSA_PKCS, curves the bare digest by CKM_ECDSA, Ed25519 32 bytes by
 * CKM_EDDSA (never verified here). Every signature is over another digest. The module is found by dlopen and its functions in its list: no header of PKCS#11 is needed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <signal.h>
#include <time.h>

typedef unsigned long ULONG, RV;
typedef unsigned char BYTE;
typedef struct { ULONG type; void *value; ULONG length; } ATTRIBUTE;
typedef struct { ULONG mechanism; void *parameter; ULONG length; } MECHANISM;
/* Places in CK_FUNCTION_LIST (PKCS#11 2.40, 5.2) of the functions that are called here. */
enum { INITIALIZE = 0, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, LOGIN = 18, FIND_INIT = 26, FIND = 27,
       FIND_FINAL = 28, SIGN_INIT = 42, SIGN = 43 };
typedef struct { BYTE major, minor; void *at[68]; } LIST;
enum { CKA_CLASS = 0, CKA_LABEL = 3, CKO_PRIVATE_KEY = 3, CKM_RSA_PKCS = 1, CKM_ECDSA = 0x1041, CKM_EDDSA = 0x1057,
       CKF_SERIAL_SESSION = 4 };
enum { KEYS_MAX = 8, ORDER_MAX = 512, TIMES_MAX = 1000000 };

struct key { char name[64]; int rsa; ULONG mechanism, handle; EVP_PKEY_CTX *verifier; };

static LIST *list;
static ULONG session;
static struct key keys[KEYS_MAX];
static int key_count;
static uint64_t serial;

static const BYTE digest_info[19] = { 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
                                      0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20 };

__attribute__((noreturn)) static void die(const char *what, ULONG rv) {
  fprintf(stderr, "limit: %s: 0x%lx\n", what, rv);
  exit(1);
}
#define CALL(place, parameters, arguments) \
  do { RV rv_ = ((RV (*) parameters)list->at[place]) arguments; if (rv_) die(#place, rv_); } while (0)

static double now(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void open_token(const char *path, const char *label, const char *pin_file) {
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!module) { fprintf(stderr, "limit: %s\n", dlerror()); exit(1); }
  RV (*get)(LIST **);
  *(void **)&get = dlsym(module, "C_GetFunctionList");
  if (!get || get(&list)) die("C_GetFunctionList", 0);
  CALL(INITIALIZE, (void *), (NULL));
  ULONG slots[256], count = 256, found = ~0ul;
  CALL(GET_SLOT_LIST, (BYTE, ULONG *, ULONG *), (1, slots, &count));
  for (ULONG i = 0; i < count; i++) {
    BYTE info[512] = { 0 }, padded[32];
    memset(padded, ' ', sizeof padded);
    memcpy(padded, label, strlen(label) < 32 ? strlen(label) : 32);
    CALL(GET_TOKEN_INFO, (ULONG, void *), (slots[i], info));
    if (!memcmp(info, padded, sizeof padded)) found = slots[i];
  }
  if (found == ~0ul) die("no token has this label", 0);
  CALL(OPEN_SESSION, (ULONG, ULONG, void *, void *, ULONG *), (found, CKF_SERIAL_SESSION, NULL, NULL, &session));
  char pin[256] = { 0 };
  FILE *file = fopen(pin_file, "r");
  if (!file || !fgets(pin, sizeof pin, file)) die("the PIN file", 0);
  fclose(file);
  pin[strcspn(pin, "\r\n")] = 0;
  CALL(LOGIN, (ULONG, ULONG, char *, ULONG), (session, 1, pin, strlen(pin)));
}

static void add_key(char *text) {
  struct key *k = &keys[key_count++];
  char *name = strtok(text, "="), *kind = strtok(NULL, "="), *spki = strtok(NULL, "=");
  if (!spki || key_count > KEYS_MAX) die("a key is NAME=KIND=SPKI-FILE", 0);
  snprintf(k->name, sizeof k->name, "%s", name);
  k->rsa = !strcmp(kind, "rsa");
  k->mechanism = k->rsa ? CKM_RSA_PKCS : !strcmp(kind, "ed") ? CKM_EDDSA : CKM_ECDSA;
  ULONG private_key = CKO_PRIVATE_KEY, count = 0;
  ATTRIBUTE wanted[] = { { CKA_CLASS, &private_key, sizeof private_key }, { CKA_LABEL, name, strlen(name) } };
  CALL(FIND_INIT, (ULONG, ATTRIBUTE *, ULONG), (session, wanted, 2));
  CALL(FIND, (ULONG, ULONG *, ULONG, ULONG *), (session, &k->handle, 1, &count));
  CALL(FIND_FINAL, (ULONG), (session));
  if (count != 1) die("no private key has this label", count);
  if (k->mechanism == CKM_EDDSA) return;
  FILE *file = fopen(spki, "rb");
  EVP_PKEY *public = file ? d2i_PUBKEY_fp(file, NULL) : NULL;
  if (!public) die("the SPKI file", 0);
  fclose(file);
  k->verifier = EVP_PKEY_CTX_new(public, NULL);
  if (EVP_PKEY_verify_init(k->verifier) <= 0 || EVP_PKEY_CTX_set_signature_md(k->verifier, EVP_sha256()) <= 0 ||
      (k->rsa && EVP_PKEY_CTX_set_rsa_padding(k->verifier, RSA_PKCS1_PADDING) <= 0))
    die("the verifier", 0);
}

static struct key *key_of(const char *name) {
  for (int i = 0; i < key_count; i++) if (!strcmp(keys[i].name, name)) return &keys[i];
  die("no such key", 0);
}

static void check(struct key *k, const BYTE *digest, const BYTE *signature, ULONG length) {
  if (!k->verifier) die("no verifier of this kind of key", 0);
  BYTE der[160], *end = der;
  if (!k->rsa) {  /* r and s side by side become the SEQUENCE that OpenSSL reads */
    ECDSA_SIG *pair = ECDSA_SIG_new();
    ECDSA_SIG_set0(pair, BN_bin2bn(signature, length / 2, NULL), BN_bin2bn(signature + length / 2, length / 2, NULL));
    length = i2d_ECDSA_SIG(pair, &end);
    ECDSA_SIG_free(pair);
    signature = der;
  }
  if (EVP_PKEY_verify(k->verifier, signature, length, digest, 32) != 1) die("a signature is wrong", 0);
}

static void sign(struct key *k, int verify) {
  BYTE data[sizeof digest_info + 32], signature[1024];
  BYTE *digest = data + sizeof digest_info;
  memcpy(data, digest_info, sizeof digest_info);
  memset(digest, 0x5a, 32);
  serial++;
  memcpy(digest, &serial, sizeof serial);
  ULONG length = sizeof signature;
  MECHANISM mechanism = { k->mechanism, NULL, 0 };
  CALL(SIGN_INIT, (ULONG, MECHANISM *, ULONG), (session, &mechanism, k->handle));
  CALL(SIGN, (ULONG, BYTE *, ULONG, BYTE *, ULONG *),
       (session, k->rsa ? data : digest, k->rsa ? sizeof data : 32, signature, &length));
  if (verify) check(k, digest, signature, length);
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void run(struct key *k, double seconds, int verify) {
  double began = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID), end = began + seconds, t;
  uint64_t count = 0;
  do { sign(k, verify); count++; t = now(CLOCK_MONOTONIC); } while (t < end);
  printf("%llu %.6f %.6f\n", (unsigned long long)count, t - began, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
}

static void time_each(struct key *k, int count) {
  static double took[TIMES_MAX];
  if (count < 1 || count > TIMES_MAX) die("how many", count);
  for (int i = 0; i < count; i++) {
    double began = now(CLOCK_MONOTONIC);
    sign(k, 0);
    took[i] = (now(CLOCK_MONOTONIC) - began) * 1e6;
  }
  qsort(took, count, sizeof *took, ascending);
  printf("%.3f %.3f\n", took[count / 2], took[(int)(count * 0.99)]);
}

int main(int argc, char **argv) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (argc < 5) { fprintf(stderr, "usage: limit MODULE TOKEN PIN-FILE KEY=rsa|ec|ed=SPKI-FILE...\n"); return 2; }
  open_token(argv[1], argv[2], argv[3]);
  for (int i = 4; i < argc; i++) add_key(argv[i]);
  printf("ready\n");
  fflush(stdout);
  char line[ORDER_MAX], name[64];
  double seconds;
  int number;
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "run %63s %lf %d", name, &seconds, &number) == 3) run(key_of(name), seconds, number);
    else if (sscanf(line, "time %63s %d", name, &number) == 2) time_each(key_of(name), number);
    else die("this is no order", 0);
    fflush(stdout);
  }
  return 0;
}
