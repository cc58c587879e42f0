/* Names to engines: ours, its emitters, the plain loops, and the peers of the modules in the folder `peers` beside the program. A module
 * NAME.so holds the peers NAME and NAME-*; it is opened when one of them is asked for and stays open. */
#include "bench.h"
#include "plain.h"

#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static const bench_peer *const built_in[] = {&bench_plain, &bench_plain_packed};

static bool peers_folder(char *path, size_t size) {
  const ssize_t length = readlink("/proc/self/exe", path, size - sizeof "/peers");
  if (length < 0) return false;
  path[length] = 0;
  char *slash = strrchr(path, '/');
  if (slash) strcpy(slash, "/peers");
  return slash != NULL;
}

/* Two libraries of the same name and the same symbols may be open side by side: each module sees its own first. */
static const bench_peers *open_module(const char *folder, const char *file, char why[BENCH_WHY]) {
  char path[4400];
  snprintf(path, sizeof path, "%s/%s", folder, file);
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const bench_peers *peers = module ? dlsym(module, BENCH_PEERS_SYMBOL) : NULL;
  if (!peers) {
    const char *message = dlerror();
    snprintf(why, BENCH_WHY, "%.255s", message ? message : "no module");
  } else if (peers->abi != BENCH_PEER_ABI) {
    snprintf(why, BENCH_WHY, "%.200s was built for another sf-bench", file);
    peers = NULL;
  }
  return peers;
}

/* Does the file NAME.so hold the peer? */
static bool holds(const char *file, const char *peer) {
  const char *dot = strstr(file, ".so");
  const size_t length = dot ? (size_t)(dot - file) : 0;
  return length && !dot[3] && (!peer || (strncmp(file, peer, length) == 0 && (peer[length] == 0 || peer[length] == '-')));
}

/* Every peer of every module that may hold `name` (NULL: all). */
static void each_of_modules(const char *name, void (*each)(void *user, const bench_peer *peer), void *user, char why[BENCH_WHY]) {
  char folder[4096];
  DIR *directory = peers_folder(folder, sizeof folder) ? opendir(folder) : NULL;
  if (!directory) return;
  for (const struct dirent *entry; (entry = readdir(directory));) {
    if (!holds(entry->d_name, name)) continue;
    const bench_peers *peers = open_module(folder, entry->d_name, why);
    for (int i = 0; peers && peers->peers[i]; i++) each(user, peers->peers[i]);
  }
  closedir(directory);
}

void bench_peers_each(void (*each)(void *user, const bench_peer *peer), void *user) {
  char why[BENCH_WHY];
  for (size_t i = 0; i < sizeof built_in / sizeof *built_in; i++) each(user, built_in[i]);
  each_of_modules(NULL, each, user, why);
}

typedef struct wanted {
  const char *name;
  const bench_peer *found;
} wanted;

static void match(void *user, const bench_peer *peer) {
  wanted *w = user;
  if (strcmp(w->name, peer->name) == 0) w->found = peer;
}

/* A 1x1 convolution over one image is a product on rows for peers that know no convolutions. */
static bool pointwise(const bench_problem *p) {
  const bench_conv *c = &p->conv;
  return c->batch == 1 && c->kernel[0] == 1 && c->kernel[1] == 1 && c->stride == 1 && c->pad == 0;
}

bool bench_engine_open(const char *name, const bench_problem *problem, bench_engine *out) {
  if (strcmp(name, "ours") == 0 || bench_is_emitter(name)) {
    bench_ours_open(problem, strcmp(name, "ours") == 0 ? NULL : name, out);
    return true;
  }
  wanted w = {name, NULL};
  *out = (bench_engine){0};
  snprintf(out->name, sizeof out->name, "%s", name);
  for (size_t i = 0; i < sizeof built_in / sizeof *built_in; i++) match(&w, built_in[i]);
  if (!w.found) each_of_modules(name, match, &w, out->why);
  if (!w.found) return out->why[0] != 0;
  const char *layout = "";
  out->state = w.found->create(problem, &layout, out->why);
  if (!out->state && pointwise(problem)) {
    bench_problem product = *problem;
    product.conv = (bench_conv){0};
    out->state = w.found->create(&product, &layout, out->why);
  }
  snprintf(out->layout, sizeof out->layout, "%s", layout);
  if (out->state) out->peer = w.found;
  return true;
}

void bench_engine_close(bench_engine *engine) {
  if (engine->peer) engine->peer->destroy(engine->state);
  engine->peer = NULL;
}
