"""What a fit reads, holds and computes, told from sizes alone: the memory model and the choices that rest on it.

The room is not called `plan` because `bigmm.plan` is the public function.
"""
