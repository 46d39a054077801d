"""Numbers to whole numbers and back: equal steps, mu-law, and nearest vectors of a codebook."""

import numpy as np


def quantize_uniform(values: np.ndarray, low: float, high: float, num_levels: int) -> np.ndarray:
    """Number of the nearest of `num_levels` equal steps from `low` to `high`; what lies outside takes the end.

    Args:
        values: Any shape, floating or integer.
        low, high: What the first and the last level stand for.
        num_levels: At least 2.

    Returns:
        int64 of the same shape, from 0 to `num_levels - 1`.
    """
    scaled = (np.asarray(values, np.float64) - low) / (high - low) * (num_levels - 1)
    return np.clip(np.rint(scaled), 0, num_levels - 1).astype(np.int64)


def dequantize_uniform(levels: np.ndarray, low: float, high: float, num_levels: int) -> np.ndarray:
    """What the levels stand for, float64 of the same shape."""
    return low + np.asarray(levels, np.float64) / (num_levels - 1) * (high - low)


def mu_law_encode(wave: np.ndarray, num_levels: int = 256) -> np.ndarray:
    """Mu-law companding (ITU-T G.711, here with its continuous curve): fine steps where sound is quiet.

    Args:
        wave: From -1 to 1, any shape; what lies outside is clipped.
        num_levels: Levels; mu is one less.

    Returns:
        int64 of the same shape, from 0 to `num_levels - 1`.
    """
    mu = num_levels - 1
    wave = np.clip(np.asarray(wave, np.float64), -1, 1)
    return quantize_uniform(np.sign(wave) * np.log1p(mu * np.abs(wave)) / np.log1p(mu), -1, 1, num_levels)


def mu_law_decode(levels: np.ndarray, num_levels: int = 256) -> np.ndarray:
    """The wave that mu-law levels stand for, float64 of the same shape, from -1 to 1."""
    mu = num_levels - 1
    curve = dequantize_uniform(levels, -1, 1, num_levels)
    return np.sign(curve) * np.expm1(np.abs(curve) * np.log1p(mu)) / mu


def fit_codebooks(vectors: np.ndarray, num_groups: int, codebook_size: int, seed: int = 0) -> np.ndarray:
    """Codebooks of product quantisation (Jégou et al. 2011, section 3): k-means in each group of neighbouring columns.

    Args:
        vectors: Shape (N, D), floating.
        num_groups: Groups that the D columns are parted into; it must divide D.
        codebook_size: Vectors in each group's codebook.
        seed: Of the k-means.

    Returns:
        float32 of shape (num_groups, codebook_size, D / num_groups); codewords in the order of their first column.

    Raises:
        ValueError: the groups do not divide the columns, or there are fewer vectors than codewords.
        ImportError: scikit-learn is not installed.
    """
    if vectors.shape[1] % num_groups:
        raise ValueError(f"{num_groups} groups do not divide {vectors.shape[1]} columns. Choose a divisor.")
    if len(vectors) < codebook_size:
        raise ValueError(f"{len(vectors)} vectors are too few for a codebook of {codebook_size}. Give more data.")
    from sklearn.cluster import MiniBatchKMeans

    books = []
    for part in np.split(np.asarray(vectors, np.float64), num_groups, axis=1):
        kmeans = MiniBatchKMeans(codebook_size, random_state=seed, n_init=1, batch_size=4096, max_iter=50).fit(part)
        centres = kmeans.cluster_centers_
        books.append(centres[np.argsort(centres[:, 0], kind="stable")])
    return np.stack(books).astype(np.float32)


def encode_by_codebooks(vectors: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Nearest codeword of each group of columns.

    Args:
        vectors: Shape (N, D), floating.
        codebooks: Shape (G, K, D / G).

    Returns:
        int64 of shape (N, G), from 0 to K - 1.
    """
    parts = np.split(np.asarray(vectors, np.float64), len(codebooks), axis=1)
    codes = []
    for part, book in zip(parts, np.asarray(codebooks, np.float64), strict=True):
        # |x - c|^2 without the part that is the same for every c.
        codes.append(np.argmin((book**2).sum(1) - 2 * part @ book.T, axis=1))
    return np.stack(codes, axis=1)


def decode_by_codebooks(codes: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """The vectors that codes stand for: (N, G) int64 to (N, D) float64."""
    columns = [np.asarray(book, np.float64)[code] for code, book in zip(np.asarray(codes).T, codebooks, strict=True)]
    return np.concatenate(columns, axis=1)
