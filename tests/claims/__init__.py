"""The page of claims, made from its data: what is promised, how to try to break it, and what came of it last."""
