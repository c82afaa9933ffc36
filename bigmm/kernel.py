"""The package's `njit`: as numba's, but a function that a kernel calls is compiled for that kernel only.

numba makes each function that a kernel calls callable from Python too: two wrappers, machine code, an object file in
the cache. That was a third of the compilation of a first fit. Here a function gets all this when Python calls it. For
a kernel it is compiled to optimized LLVM code, which is linked into the kernel as numba does it, so that the kernel's
machine code is the same. numba's cache keeps this code in files of its own (`-callee`).
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numba
from llvmlite.binding import parse_bitcode
from numba.core import caching, compiler
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.environment import lookup_environment
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature


class _Callers(threading.local):
    """How many functions of this thread are compiled whose callees are looked at."""

    count = 0


_callers = _Callers()


def _njit(*functions: Any, cache: bool = False, **options: Any) -> Any:
    """numba.njit with the same options, as a decorator with or without them."""

    def compiled(function: Any) -> Any:
        dispatcher = numba.njit(pipeline_class=_Pipeline, **options)(function)
        if not isinstance(dispatcher, CPUDispatcher):  # NUMBA_DISABLE_JIT
            return dispatcher
        dispatcher.__class__ = _Dispatcher
        if cache:
            dispatcher.enable_caching()
        return dispatcher

    return compiled(*functions) if functions else compiled


if TYPE_CHECKING:
    from numba import njit as njit
else:
    njit = _njit


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Code for callers: optimized, but no machine code."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def serialize_using_object_code(self) -> tuple[str, str, bytes]:
        name, kind, code = self.serialize_using_bitcode()
        return name, kind, code


class _Pipeline(compiler.Compiler):  # type: ignore[misc]
    """numba's passes. What is compiled for a caller goes to a `_Library`, without entries."""

    def define_pipelines(self) -> Any:
        state = self.state
        if _callers.count:
            state.flags.no_compile = state.flags.no_cpython_wrapper = state.flags.no_cfunc_wrapper = True
            state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().define_pipelines()


class _Dispatcher(CPUDispatcher):  # type: ignore[misc]
    """One whose functions are compiled anew when Python calls what was compiled for callers."""

    _cache: Any

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """A caller's question for the types of a call, which has the function compiled."""
        _callers.count += 1
        try:
            return super().get_call_template(args, kws)
        finally:
            _callers.count -= 1

    def compile(self, sig: Any) -> Any:
        args = tuple(normalize_signature(sig)[0])
        with global_compiler_lock:  # another thread may be between the types of a caller and its code
            former: Any = self.overloads.get(args)
            if not _callers.count and former is not None and isinstance(former.library, _Library):
                del self.overloads[args]
            return super().compile(sig)

    def add_overload(self, cres: Any) -> None:
        if isinstance(cres.library, _Library):
            entry = object()  # callers find the code by it; not registered as callable from Python
            self.targetctx.insert_user_function(entry, cres.fndesc, [cres.library])
            self.overloads[tuple(cres.signature.args)] = cres._replace(entry_point=entry)
            return
        # A kernel's callees raise errors by their environments, which numba fills in for functions with machine code.
        for variable in cres.library._final_module.global_variables:
            environment = lookup_environment(variable.name) if variable.name.startswith("_ZN08NumbaEnv") else None
            if environment is not None:
                cres.library.codegen.set_env(variable.name, environment)
        super().add_overload(cres)

    def enable_caching(self) -> None:
        super().enable_caching()  # nothing where no place can be written, see `kernel_cache`
        if isinstance(self._cache, caching.FunctionCache):
            self._cache.__class__ = _Cache


class _CalleeFiles(caching.CompileResultCacheImpl):  # type: ignore[misc]
    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        base: str = super().get_filename_base(f"{fullname}-callee", abiflags)
        return base

    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """What `reduce` made of a function that was compiled for a caller."""
        (name, _, code), fndesc, environment, signature, objectmode, lifted, annotation, reloads, environments = payload
        for reload in reloads:
            reload()
        library = _Library(target_context.codegen(), name)
        library._final_module = parse_bitcode(code)
        library._finalize_final_module()
        return compiler.compile_result(
            target_context=target_context,
            typing_context=target_context.typing_context,
            library=library,
            environment=environment,
            entry_point=None,
            fndesc=fndesc,
            type_annotation=annotation,
            signature=signature,
            objectmode=objectmode,
            lifted=lifted,
            reload_init=reloads,
            referenced_envs=environments,
        )


class _CalleeCache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _CalleeFiles


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    """Files of a function for Python, and others of the same function for its callers."""

    @cached_property
    def _callee(self) -> _CalleeCache:
        return _CalleeCache(self._py_func)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if _callers.count:
            return self._callee.load_overload(sig, target_context)
        return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        if _callers.count:
            self._callee.save_overload(sig, data)
        else:
            super().save_overload(sig, data)
