"""A classifier without a neural network: TF-IDF of n-grams and logistic regression, by scikit-learn."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


# No tokenizer makes a word of it.
_UNKNOWN = "\x1e"


def tfidf_scores(
    texts: Sequence[Sequence[str]], labels: np.ndarray, others: Sequence[Sequence[str]], max_order: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds of label 1 for texts that were learnt from and for others.

    Args:
        texts: Tokens of each text to learn from.
        labels: 0 or 1 for each of them, `(texts,)`; both classes weigh the same.
        others: Tokens of each text to score.
        max_order: n-grams of 1 to `max_order` tokens; those in a single text of the training half are left out. A word
            in a single text stands for all unknown ones, so that texts full of those are told from others.

    Returns:
        Scores `(texts,)` and `(others,)`, float64.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    repeated = sum(map(len, texts)) > 1000
    counts = Counter(token for tokens in texts for token in set(tokens))

    def ngrams(tokens: Sequence[str]) -> list[str]:
        if repeated:
            tokens = [token if counts[token] > 1 else _UNKNOWN for token in tokens]
        # The vectorizer's own words leave out punctuation and single letters, which tell generated text.
        return [
            "\x1f".join(tokens[start : start + order])
            for order in range(1, max_order + 1)
            for start in range(len(tokens) - order + 1)
        ]

    pipeline = make_pipeline(
        TfidfVectorizer(analyzer=ngrams, sublinear_tf=True, min_df=2 if repeated else 1),
        LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000),
    )
    pipeline.fit(texts, labels)
    return pipeline.decision_function(texts), pipeline.decision_function(others)
