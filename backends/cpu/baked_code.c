/* Machine code of the pieces of "spmm-baked": an assembler of the few AVX-512 instructions that they are made of, and the walk that puts
 * them down. Register use: baked.h; why this code: emit_baked.c; encodings: EVEX in volume 2 of Intel's manual. */
#include "baked.h"

enum { RAX = 0, RCX = 1, RDX = 2, RSI = 6 };
enum { MAP_0F = 1, MAP_0F38 = 2, MAP_0F3A = 3, NO_PREFIX = 0, PREFIX_66 = 1 };
enum { BROADCAST = 0x10, ZEROING = 0x80 }; /* bits of the last byte of the EVEX prefix, beside the mask's number */
enum { NEAR = 128 };                       /* displacements of one byte are below it, in units of the operand's size */

typedef struct opcode {
  uint8_t map, prefix, code, unit; /* unit: bytes of an operand in memory */
} opcode;
static const opcode vfmadd231ps = {MAP_0F38, PREFIX_66, 0xb8, 64}, vmulps = {MAP_0F, NO_PREFIX, 0x59, 64},
                    vmovups = {MAP_0F, NO_PREFIX, 0x10, 64}, vpxord = {MAP_0F, PREFIX_66, 0xef, 64},
                    vbroadcastss = {MAP_0F38, PREFIX_66, 0x18, 4}, vbroadcastf32x4 = {MAP_0F38, PREFIX_66, 0x1a, 16},
                    vpermilps = {MAP_0F3A, PREFIX_66, 0x04, 64};

typedef struct assembler {
  const sfi_kernel *k;
  sfi_baked_code *code;
  bool masked, quads;
  int32_t vectors;
  int64_t groups, piece;      /* piece at work; -1: none yet */
  int64_t x_at, values_at;    /* where rax and rsi point, in bytes from X and from the values */
  int64_t value, quad;        /* the next value; those in the register of quads begin at `quad` */
  bool started[SFI_ROWS_MAX]; /* rows of the piece that have sums */
  int64_t columns, nonzeros;  /* over all pieces */
} assembler;

/* ---- instructions -------------------------------------------------------------------------------------------------- */

static void put_byte(assembler *a, int64_t value) {
  if (a->code->bytes) a->code->bytes[a->code->size] = (uint8_t)value;
  a->code->size++;
}
static void put_word(assembler *a, int64_t value) {
  for (int i = 0; i < 4; i++) put_byte(a, value >> 8 * i & 0xff);
}

/* Prefix and opcode: `reg` and `other` are vector registers, `rm` one or a general register below 8. */
static void put_evex(assembler *a, opcode op, int32_t reg, int32_t other, int32_t rm, int32_t flags) {
  put_byte(a, 0x62);
  put_byte(a, (~reg >> 3 & 1) << 7 | (~rm >> 4 & 1) << 6 | (~rm >> 3 & 1) << 5 | (~reg >> 4 & 1) << 4 | op.map);
  put_byte(a, (~other & 15) << 3 | 4 | op.prefix);
  put_byte(a, 2 << 5 | (~other >> 4 & 1) << 3 | flags);
  put_byte(a, op.code);
}

static void on_registers(assembler *a, opcode op, int32_t reg, int32_t other, int32_t rm) {
  put_evex(a, op, reg, other, rm, 0);
  put_byte(a, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static void on_memory(assembler *a, opcode op, int32_t reg, int32_t other, int32_t base, int64_t displacement, int32_t flags) {
  int64_t unit = flags & BROADCAST ? 4 : op.unit, units = displacement / unit;
  bool near = displacement % unit == 0 && units >= -NEAR && units < NEAR;
  put_evex(a, op, reg, other, base, flags);
  put_byte(a, (near ? 0x40 : 0x80) | (reg & 7) << 3 | base);
  if (near)
    put_byte(a, units & 0xff);
  else
    put_word(a, displacement);
}

/* Register `moving` points *at bytes behind `base`. Moves it, if need be, so that short displacements reach [offset, end) and as much
 * behind as they can. */
static void reach(assembler *a, int32_t moving, int32_t base, int64_t *at, int64_t offset, int64_t end, int64_t unit) {
  if ((offset - *at) % unit == 0 && offset - *at >= -NEAR * unit && end - *at <= NEAR * unit) return;
  *at = offset + NEAR * unit;
  put_byte(a, 0x48); /* lea moving, [base + *at] */
  put_byte(a, 0x8d);
  put_byte(a, 0x80 | moving << 3 | base);
  put_word(a, *at);
}

/* ---- pieces -------------------------------------------------------------------------------------------------------- */

static void end_piece(assembler *a) {
  if (a->piece < 0) return;
  for (int32_t r = 0; r < sfi_baked_group_rows(a->k, a->piece % a->groups); r++)
    for (int32_t s = r * a->vectors; s < (r + 1) * a->vectors && !a->started[r]; s++) on_registers(a, vpxord, s, s, s);
  put_byte(a, 0xc3); /* ret */
}

static void begin_piece(assembler *a) {
  end_piece(a);
  a->piece++;
  a->x_at = a->values_at = INT64_MIN / 2;
  a->quad = -1;
  for (int32_t r = 0; r < SFI_ROWS_MAX; r++) a->started[r] = a->piece >= a->groups;
  if (a->code->start) a->code->start[a->piece] = (uint32_t)a->code->size;
}

/* The next value in all lanes of `to`. Quads spread four values that one load brings: a shuffle in place of a load. */
static void put_value(assembler *a, int32_t to) {
  int64_t value = a->value++, quad = value - value % 4;
  if (!a->quads) {
    reach(a, RSI, RDX, &a->values_at, value * 4, value * 4 + 4, 4);
    on_memory(a, vbroadcastss, to, 0, RSI, value * 4 - a->values_at, 0);
    return;
  }
  const int32_t kept = to + 1;
  if (quad != a->quad) {
    reach(a, RSI, RDX, &a->values_at, quad * 4, quad * 4 + 16, 16);
    on_memory(a, vbroadcastf32x4, kept, 0, RSI, quad * 4 - a->values_at, 0);
    a->quad = quad;
  }
  on_registers(a, vpermilps, to, 0, kept);
  put_byte(a, value % 4 * 0x55);
}

/* A column that one row has multiplies X from memory; for more, its vectors are loaded first. A single vector is always loaded, and
 * the values come from memory. */
static void put_column(void *user, const sfi_baked_column *column) {
  assembler *a = user;
  while (a->piece < column->piece) begin_piece(a);
  int32_t vectors = a->vectors, x = a->k->tile.rows * vectors, value = x + vectors;
  bool once = column->n == 1 && vectors > 1;
  int64_t at = (int64_t)sfi_position(a->k, column->k) * 4;
  reach(a, RAX, RCX, &a->x_at, at, at + (int64_t)vectors * 64, 64);
  at -= a->x_at;
  for (int32_t v = 0; v < vectors && !once; v++)
    on_memory(a, vmovups, x + v, 0, RAX, at + v * 64, a->masked ? ZEROING | (v + 1) : 0);
  for (int32_t i = 0; i < column->n; i++) {
    int32_t r = column->row[i];
    const opcode op = a->started[r] ? vfmadd231ps : vmulps;
    int32_t flags = a->started[r] ? 0 : ZEROING;
    a->started[r] = true;
    if (vectors == 1) {
      int64_t w = a->value++ * 4;
      reach(a, RSI, RDX, &a->values_at, w, w + 4, 4);
      on_memory(a, op, r, x, RSI, w - a->values_at, BROADCAST);
      continue;
    }
    put_value(a, value);
    for (int32_t v = 0; v < vectors; v++) {
      if (once)
        on_memory(a, op, r * vectors + v, value, RAX, at + v * 64, a->masked ? flags | (v + 1) : 0);
      else
        on_registers(a, op, r * vectors + v, value, x + v);
    }
  }
}

static void count_column(void *user, const sfi_baked_column *column) {
  assembler *a = user;
  a->columns++;
  a->nonzeros += column->n;
}

void sfi_baked_assemble(const sfi_kernel *k, const sfi_target *target, bool masked, sfi_baked_code *code) {
  assembler a = {.k = k, .code = code, .masked = masked, .vectors = k->tile.vectors, .groups = sfi_baked_groups(k), .piece = -1};
  code->size = 0;
  sfi_baked_walk(k, target, count_column, &a);
  a.quads = (double)a.nonzeros < 1.4 * (double)a.columns;
  sfi_baked_walk(k, target, put_column, &a);
  while (a.piece + 1 < sfi_baked_pieces(k, target)) begin_piece(&a);
  end_piece(&a);
}
