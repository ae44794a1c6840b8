"""A run predicted from shapes alone: traced calls, kernels and autograd, an allocator replayed."""
