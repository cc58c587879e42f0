/* One kernel to LLVM IR, assembly or an object in memory. Every call has an LLVM context and a target machine of its own: LLVM's
 * are not to be shared between threads. */
#include "cpu_backend.h"
#include "emitters.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <llvm-c/Transforms/PassBuilder.h>

#include <pthread.h>

/* Loops are written as they should run, so no unrolling or vectorising passes: what is left is cleaning. */
static const char passes[] = "function(early-cse,instcombine<no-verify-fixpoint>,simplifycfg,loop-simplify,lcssa,"
                             "loop-mssa(loop-rotate,licm),early-cse,instcombine<no-verify-fixpoint>,dse,simplifycfg)";

/* LLVM's tables of targets are global; filled once a process. */
static const char *missing; /* NULL, or why LLVM is not there */
static void initialize_targets(void) {
  if ((missing = sfi_llvm_load())) return;
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMInitializeX86AsmParser();
  LLVMInitializeAArch64TargetInfo();
  LLVMInitializeAArch64Target();
  LLVMInitializeAArch64TargetMC();
  LLVMInitializeAArch64AsmPrinter();
  LLVMInitializeAArch64AsmParser();
}
sf_status sfi_cpu_initialize(sfi_diag *diag) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, initialize_targets);
  return missing ? sfi_fail(diag, SF_STATUS_UNSUPPORTED, NULL, NULL, "LLVM is needed and cannot be loaded: %s", missing) : SF_OK;
}

/* Errors that LLVM reports by its handler (bad inline assembly among them) must fail the compile, not print. */
typedef struct report {
  bool failed;
  char text[256];
} report;
static void on_diagnostic(LLVMDiagnosticInfoRef info, void *user) {
  report *r = user;
  if (LLVMGetDiagInfoSeverity(info) != LLVMDSError || r->failed) return;
  char *text = LLVMGetDiagInfoDescription(info);
  r->failed = true;
  size_t n = strnlen(text, sizeof r->text - 1);
  memcpy(r->text, text, n);
  r->text[n] = 0;
  LLVMDisposeMessage(text);
}

static void attribute(sfi_emission *e, const char *name, const char *value) {
  LLVMAttributeRef a = LLVMCreateStringAttribute(e->context, name, (unsigned)strlen(name), value, (unsigned)strlen(value));
  LLVMAddAttributeAtIndex(e->function, (LLVMAttributeIndex)LLVMAttributeFunctionIndex, a);
}
static void enum_attribute(sfi_emission *e, unsigned index, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(e->function, index, LLVMCreateEnumAttribute(e->context, kind, 0));
}

/* The function's frame: attributes, arguments, and the operands' base addresses. */
static void begin_function(sfi_emission *e) {
  LLVMTypeRef arguments[] = {e->ptr, e->i64, e->i64};
  e->function =
      LLVMAddFunction(e->module, SFI_KERNEL_SYMBOL, LLVMFunctionType(LLVMVoidTypeInContext(e->context), arguments, 3, false));
  attribute(e, "target-cpu", e->target->cpu);
  attribute(e, "target-features", e->target->features);
  char bits[16];
  int n = 0;
  for (int32_t width = e->lanes * 32, div = 1000; div; div /= 10)
    if (width >= div) bits[n++] = (char)('0' + width / div % 10);
  bits[n] = 0;
  attribute(e, "prefer-vector-width", bits); /* else LLVM halves 512-bit vectors on some tunings */
  attribute(e, "min-legal-vector-width", bits);
  enum_attribute(e, (unsigned)LLVMAttributeFunctionIndex, "nounwind");
  LLVMPositionBuilderAtEnd(e->builder, LLVMAppendBasicBlockInContext(e->context, e->function, ""));
  LLVMValueRef args = LLVMGetParam(e->function, 0);
  e->tile_begin = LLVMGetParam(e->function, 1);
  e->tile_end = LLVMGetParam(e->function, 2);
  LLVMValueRef buffers = LLVMBuildLoad2(e->builder, e->ptr, args, "");
  e->symbol = sfi_load_scalar(e, e->i64, args, sfi_i64(e, offsetof(sf_kernel_args, symbol) / 8));
  for (int32_t i = 0; i < e->kernel->n_operands; i++) e->base[i] = sfi_load_scalar(e, e->ptr, buffers, sfi_i64(e, i));
}

static sf_status failed(sfi_diag *diag, const sfi_kernel *kernel, const char *what, const char *text) {
  return sfi_fail(diag, SF_STATUS_COMPILE_ERROR, NULL, kernel->name, "%s: %s", what, text ? text : "no reason given");
}

sf_status sfi_cpu_compile(const sfi_plan *plan, const sfi_kernel *kernel, sfi_format format, const sf_allocator *allocator,
                          sfi_diag *diag, sfi_blob *out) {
  sf_status st = sfi_cpu_initialize(diag);
  char *text = NULL;
  LLVMTargetRef target = NULL;
  LLVMTargetMachineRef machine = NULL;
  LLVMTargetDataRef layout = NULL;
  LLVMMemoryBufferRef buffer = NULL;
  LLVMPassBuilderOptionsRef options = NULL;
  LLVMErrorRef error = NULL;
  report r = {0};
  const sfi_target *t = plan->target;

  if (st != SF_OK) return st;
  sfi_emission e = {.target = t,
                    .plan = plan,
                    .kernel = kernel,
                    .allocator = allocator,
                    .diag = diag,
                    .lanes = t->lanes,
                    .context = LLVMContextCreate()};
  LLVMContextSetDiagnosticHandler(e.context, on_diagnostic, &r);
  e.module = LLVMModuleCreateWithNameInContext(SFI_KERNEL_SYMBOL, e.context);
  e.builder = LLVMCreateBuilderInContext(e.context);
  e.f32 = LLVMFloatTypeInContext(e.context);
  e.i1 = LLVMInt1TypeInContext(e.context);
  e.i8 = LLVMInt8TypeInContext(e.context);
  e.i16 = LLVMInt16TypeInContext(e.context);
  e.i32 = LLVMInt32TypeInContext(e.context);
  e.i64 = LLVMInt64TypeInContext(e.context);
  e.ptr = LLVMPointerTypeInContext(e.context, 0);
  e.vec = LLVMVectorType(e.f32, (unsigned)t->lanes);
  LLVMSetTarget(e.module, t->triple);
  if (LLVMGetTargetFromTriple(t->triple, &target, &text)) {
    st = sfi_fail(diag, SF_STATUS_UNSUPPORTED, NULL, kernel->name, "LLVM has no target %s: %s", t->triple, text);
    goto done;
  }
  machine =
      LLVMCreateTargetMachine(target, t->triple, t->cpu, t->features, LLVMCodeGenLevelDefault, LLVMRelocPIC, LLVMCodeModelDefault);
  layout = LLVMCreateTargetDataLayout(machine);
  LLVMSetModuleDataLayout(e.module, layout);

  begin_function(&e);
  if ((st = kernel->emitter->emit(&e, kernel, plan)) != SF_OK) goto done;
  LLVMBuildRetVoid(e.builder);
  if (LLVMVerifyModule(e.module, LLVMReturnStatusAction, &text)) {
    st = failed(diag, kernel, "malformed code", text);
    goto done;
  }
  LLVMDisposeMessage(text);
  text = NULL;
  options = LLVMCreatePassBuilderOptions();
  if ((error = LLVMRunPasses(e.module, passes, machine, options))) {
    char *message = LLVMGetErrorMessage(error);
    st = failed(diag, kernel, "optimisation", message);
    LLVMDisposeErrorMessage(message);
    goto done;
  }
  if (format == SFI_FORMAT_IR) {
    text = LLVMPrintModuleToString(e.module);
    size_t n = strlen(text);
    if (!sfi_blob_init(out, allocator, n))
      st = sfi_fail_memory(diag);
    else
      memcpy(out->data, text, n);
    goto done;
  }
  if (LLVMTargetMachineEmitToMemoryBuffer(machine, e.module, format == SFI_FORMAT_ASM ? LLVMAssemblyFile : LLVMObjectFile, &text,
                                          &buffer) ||
      r.failed) {
    st = failed(diag, kernel, "code generation", r.failed ? r.text : text);
    goto done;
  }
  size_t size = LLVMGetBufferSize(buffer);
  if (!sfi_blob_init(out, allocator, size))
    st = sfi_fail_memory(diag);
  else
    memcpy(out->data, LLVMGetBufferStart(buffer), size);
done:
  if (buffer) LLVMDisposeMemoryBuffer(buffer);
  if (text) LLVMDisposeMessage(text);
  if (options) LLVMDisposePassBuilderOptions(options);
  LLVMDisposeBuilder(e.builder);
  LLVMDisposeModule(e.module);
  if (layout) LLVMDisposeTargetData(layout);
  if (machine) LLVMDisposeTargetMachine(machine);
  LLVMContextDispose(e.context);
  return st;
}
