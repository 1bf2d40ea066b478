"""Parts of `benchmarks/accelerator.py`; `benchmarks/compiled.py` compiles the same programs."""
