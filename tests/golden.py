"""Golden inputs: small matrices with known answers, computed in float64 independently of jaxcl.

M(s)[i, j] = sin(s + 0.7 i + 1.3 j + 0.1 i j); A, B, C are its 4 x 5 corners at 0, 0.5 and 1.7.
"""

import numpy as np


def matrix(start: float, rows: int = 4, columns: int = 5) -> np.ndarray:
    i, j = np.arange(rows)[:, None], np.arange(columns)
    return np.sin(start + 0.7 * i + 1.3 * j + 0.1 * i * j)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


A, B, C = matrix(0.0), matrix(0.5), matrix(1.7)
a, b, c = unit(A), unit(B), unit(C)
