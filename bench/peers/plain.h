/* The plain loops, built into sf-bench. */
#ifndef BENCH_PLAIN_H
#define BENCH_PLAIN_H

#include "peer.h"

extern const bench_peer bench_plain, bench_plain_packed;

#endif
