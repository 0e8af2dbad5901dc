"""How good the vectors are: retrieval and similarity tasks of mteb, and two ways to embed compared.

    names | directory -> tasks -> adapter, prompts -> Source (Python API | server) -> mteb -> its result files
    A, B -> engine runs -> vectors -> scores -> agreement, nDCG difference -> table, JSON, plot

The one part of `benchmarks/` that is installed with polyvec: `polyvec bench quality` and `polyvec compare` are
made of it. It knows the public Python API and the HTTP wire, and none of the other benchmarks. What it needs
beside polyvec's own dependencies is the extra `quality`, imported when something is measured.
"""
