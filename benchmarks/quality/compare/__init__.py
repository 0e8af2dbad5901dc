"""Two ways to embed one corpus, compared: vectors, rankings and, where there are judgments, retrieval.

Spec, Spec -> EngineRun (one, or two) -> vectors -> Side, Side -> Comparison -> table, JSON, plot
"""
