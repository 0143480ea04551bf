# cython: language_level=3, binding=False, embedsignature=True, embedsignature.format=clinic
"""Row statistics and affine maps of spectra: SNV or a norm, then X @ W + b, without the spectra in between; sums of decision trees.

Owns: the checks of what comes in, and the choice of instruction set when the module is loaded.
Promises: bad arguments raise before any work; inputs may be read-only; NaN and infinity go through
to the rows that have them; a row gives the same bits alone, among others and in any thread. Leaves to others: which chain is which map.

(a) A row is read from memory once, and for SNV passed over once: its sums and products are taken around
    a pilot, the mean of eight of its values, and corrected afterwards. That costs no digits where the
    pilot is within four deviations of the mean; other rows are done again with their mean as pilot.
(b) One source is compiled for AVX-512, AVX2 and plain vectors and chosen when loaded: SSE2 alone,
    which a wheel may assume, would lose to BLAS.
(c) Arrays come through the buffer protocol, so one abi3 module serves every numpy.
"""

from cpython.buffer cimport Py_buffer, PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uintptr_t

import numpy as np

cdef extern from "row_map.h" nogil:
    ctypedef enum n4a_statistic:
        N4A_PLAIN, N4A_SNV, N4A_NORM_1, N4A_NORM_2, N4A_NORM_MAX
    ctypedef struct n4a_map:
        const double *x
        int64_t x_stride, rows, columns
        n4a_statistic statistic
        int64_t ddof
        const double *center
        const double *weights
        int64_t weights_stride, targets
        const double *intercept
        double *out
        int64_t out_stride
    void n4a_map_run(const n4a_map *map, int threads, int level)
    int n4a_levels()
    int n4a_best_level(int64_t targets)
    const char *n4a_level_name(int level)

cdef extern from "forest.h" nogil:
    ctypedef struct n4a_node:
        double threshold
        int32_t feature, left
    ctypedef struct n4a_tree:
        int32_t root, depth, column
    ctypedef struct n4a_forest:
        const n4a_node *nodes
        const double *values
        const n4a_tree *trees
        int64_t count, width, tree_count
        int single
    int n4a_forest_is_sound(const n4a_forest *forest, int64_t features, int64_t outputs)
    int n4a_tree_is_sound(const char *nodes, int64_t stride, int64_t count, int64_t features)
    ctypedef struct n4a_grown:
        int64_t stride, left, right, is_leaf, is_categorical, bitset, feature
    int64_t n4a_grown_tree_needs(const char *nodes, const n4a_grown *grown, int64_t count, int64_t bitsets)
    enum:
        N4A_ABREAST
    void n4a_forest_sum_float(const n4a_forest *forest, const float *x, int64_t features, int64_t rows, float *turned, double *total, int64_t outputs)
    void n4a_forest_sum_double(const n4a_forest *forest, const double *x, int64_t features, int64_t rows, double *turned, double *total, int64_t outputs)

cdef enum:
    NOGIL_FROM = 32768  # values: less takes less time than handing the GIL over and back

__all__ = ["affine", "forest_sum", "grown_trees_need", "instruction_sets", "new_nodes", "new_trees", "norm_affine", "snv", "snv_affine", "tree_sizes_fit", "trees_are_sound"]

cdef int _widest = n4a_levels() - 1
cdef object _empty = np.empty


def instruction_sets() -> list[str]:
    """Names of the instruction sets that this machine can use, the widest last; for a single target AVX2 is in use at
    most.
    """
    return [n4a_level_name(level).decode() for level in range(_widest + 1)]


def affine(X: object, W: object, b: object, center: object = None, out: object = None, threads: int = 1, level: int = -1) -> object:
    """(X - center) @ W + b for float64 X (n, m), W (m, k), b (k,), center (m,): an array (n, k), or `out`.

    Rows of X may lie apart but not their values; W is best in Fortran order, else it is copied. `level` chooses an
    instruction set by its place in `instruction_sets()`. Raises TypeError and ValueError before any work.
    """
    return _mapped(N4A_PLAIN, X, W, b, center, 0, out, threads, level)


def snv_affine(X: object, W: object, b: object, ddof: int = 0, center: object = None, out: object = None, threads: int = 1, level: int = -1) -> object:
    """Like `affine` for rows that are centred on their mean and divided by their standard deviation first.

    A row whose deviation is zero, or rounding alone, gives NaN.
    """
    return _mapped(N4A_SNV, X, W, b, center, ddof, out, threads, level)


def norm_affine(X: object, W: object, b: object, order: str = "l2", center: object = None, out: object = None, threads: int = 1, level: int = -1) -> object:
    """Like `affine` for rows that are divided by their norm first: "l1", "l2" or "max". A norm below 1e-9 gives NaN."""
    if order not in _NORMS:
        raise ValueError(f"order must be one of {', '.join(_NORMS)}, not {order!r}")
    return _mapped(_NORMS[order], X, W, b, center, 0, out, threads, level)


def snv(X: object, ddof: int = 0, center: object = None, out: object = None, threads: int = 1, level: int = -1) -> object:
    """The rows of X centred on their mean and divided by their standard deviation, less `center`: an array like X, or
    `out`.
    """
    return _mapped(N4A_SNV, X, None, None, center, ddof, out, threads, level)


def new_nodes(count: int) -> object:
    """An array of nodes for `forest_sum`, to be filled: records of threshold, feature and left child."""
    return np.empty(count, dtype=_NODE)


def new_trees(count: int) -> object:
    """An array of trees for `forest_sum`, to be filled: records of root, depth and column."""
    return np.empty(count, dtype=_TREE)


def forest_sum(nodes: object, values: object, trees: object, X: object, total: object, single: bool = False) -> None:
    """Adds to `total`, tree by tree, what the leaves hold that the rows of X come to.

    X (n, m) is float32 or float64, `total` (n, k) float64 in C order. `nodes` holds those of all trees as `new_nodes`
    makes them: a row goes to the left child if its value of the feature is at most the threshold, else to the node
    behind that child; a leaf is its own child, with an infinite threshold. `values` (nodes, w) are added from the
    column of the tree on, and with `single` each sum is rounded to float32. Infinite values end in some leaf. Raises
    ValueError before any work.
    """
    nodes, trees = np.ascontiguousarray(nodes, dtype=_NODE), np.ascontiguousarray(trees, dtype=_TREE)
    values = np.ascontiguousarray(values, dtype=np.float64)
    X = np.ascontiguousarray(X, dtype=np.float32 if X.dtype == np.float32 else np.float64)
    if nodes.ndim != 1 or trees.ndim != 1 or values.ndim != 2 or X.ndim != 2 or len(values) != len(nodes):
        raise ValueError(f"expected (nodes), (nodes, w), (trees) and (n, m), got {nodes.shape}, {values.shape}, {trees.shape} and {X.shape}")
    if total.dtype != np.float64 or total.ndim != 2 or len(total) != len(X) or not (total.flags.c_contiguous and total.flags.writeable):
        raise ValueError(f"total must be float64 of {len(X)} rows in C order")
    cdef n4a_forest forest
    cdef uintptr_t node = nodes.ctypes.data, value = values.ctypes.data, tree = trees.ctypes.data, x = X.ctypes.data, out = total.ctypes.data
    forest.nodes, forest.values, forest.trees = <const n4a_node *>node, <const double *>value, <const n4a_tree *>tree
    forest.count, forest.width, forest.tree_count = len(nodes), values.shape[1], len(trees)
    forest.single = single
    cdef int64_t columns = X.shape[1], rows = len(X), outputs = total.shape[1]
    turned = np.empty((N4A_ABREAST, columns), X.dtype)
    cdef uintptr_t room = turned.ctypes.data
    cdef bint sound, narrow = X.dtype == np.float32
    with nogil:
        sound = n4a_forest_is_sound(&forest, columns, outputs)
        if sound and columns and narrow:
            n4a_forest_sum_float(&forest, <const float *>x, columns, rows, <float *>room, <double *>out, outputs)
        elif sound and columns:
            n4a_forest_sum_double(&forest, <const double *>x, columns, rows, <double *>room, <double *>out, outputs)
    if not sound:
        raise ValueError(f"a root, child, feature or column lies outside the {forest.count} nodes, {columns} columns and {outputs} outputs")


def trees_are_sound(nodes: list, features: list, stride: int) -> bool:
    """Whether every way down scikit-learn's trees ends inside them, over features that there are.

    `nodes` holds a contiguous array for each tree, of records or rows of `stride` bytes that begin with left child,
    right child and feature (int64); `features` says how many each has. A left child of -1, and no other number, makes a
    leaf. Raises ValueError or BufferError for arrays of another kind.
    """
    cdef Py_buffer view
    cdef int64_t apart = stride, count, width
    cdef bint sound = True
    for tree, width in zip(nodes, features, strict=True):
        PyObject_GetBuffer(tree, &view, PyBUF_SIMPLE)
        count = view.len // apart if apart >= 24 and view.len % apart == 0 else -1
        if count >= 0:
            sound &= n4a_tree_is_sound(<const char *>view.buf, apart, count, width)
        PyBuffer_Release(&view)
        if count < 0:
            raise ValueError(f"a tree is no array of nodes of {stride} bytes")
    return sound


def grown_trees_need(nodes: list, bitsets: list, layout: tuple) -> int:
    """How many features scikit-learn's trees that were grown by histograms ask for; -1 where a way down one of them
    does not end inside it, a feature lies before the first, or the bits of a split into categories are not there.

    `nodes` holds a contiguous array for each tree, `bitsets` its two of bits. `layout` is the size of a node and where
    it has left child, right child, mark of a leaf, mark of categories, bitset and feature, in bytes. Raises ValueError
    or BufferError for arrays of another kind.
    """
    cdef Py_buffer view
    cdef n4a_grown grown
    cdef int64_t count, found, most = 0
    grown.stride, grown.left, grown.right, grown.is_leaf, grown.is_categorical, grown.bitset, grown.feature = layout
    if min(layout) < 0 or max(grown.left + 3, grown.right + 3, grown.is_leaf, grown.is_categorical, grown.bitset + 3, grown.feature + 7) >= grown.stride:
        raise ValueError(f"a node of {grown.stride} bytes does not have what is in it")
    for tree, (binned, raw) in zip(nodes, bitsets, strict=True):
        count = min(_bitset_count(binned), _bitset_count(raw))
        PyObject_GetBuffer(tree, &view, PyBUF_SIMPLE)
        found = -2
        if view.len % grown.stride == 0:
            found = n4a_grown_tree_needs(<const char *>view.buf, &grown, view.len // grown.stride, count)
        PyBuffer_Release(&view)
        if found == -2:
            raise ValueError(f"a tree is no array of nodes of {grown.stride} bytes")
        most = max(most, found) if min(most, found) >= 0 else -1
    return most


cdef int64_t _bitset_count(object bits) except -1:
    cdef Py_buffer view
    PyObject_GetBuffer(bits, &view, PyBUF_ND | PyBUF_FORMAT)
    cdef bint fits = view.ndim == 2 and view.shape[1] == 8 and view.itemsize == 4 and view.format[0] in b"IL" and view.format[1] == 0
    cdef int64_t count = view.shape[0] if fits else 0
    PyBuffer_Release(&view)
    if not fits:
        raise ValueError("bits of categories are no rows of eight uint32")
    return count


def tree_sizes_fit(n_features: int, n_classes: object, n_outputs: int) -> bool:
    """Whether a tree may be made of these: a number of classes for each output, as int64, all within reason."""
    cdef int64_t features = n_features, outputs = n_outputs, output
    cdef Py_buffer view
    PyObject_GetBuffer(n_classes, &view, PyBUF_ND | PyBUF_FORMAT)
    cdef bint fit = view.ndim == 1 and view.itemsize == 8 and view.format[0] in b"lq" and view.format[1] == 0
    fit = fit and 1 <= features <= 2**31 and 1 <= outputs <= 2**20 and view.shape[0] == outputs
    for output in range(outputs if fit else 0):
        fit &= 1 <= (<const int64_t *>view.buf)[output] <= 2**31
    PyBuffer_Release(&view)
    return fit


_NODE = np.dtype([("threshold", np.float64), ("feature", np.int32), ("left", np.int32)], align=True)
_TREE = np.dtype([("root", np.int32), ("depth", np.int32), ("column", np.int32)], align=True)
_NORMS = {"l1": N4A_NORM_1, "l2": N4A_NORM_2, "max": N4A_NORM_MAX}


cdef class _View:
    """A buffer of doubles for the length of a call."""

    cdef Py_buffer view
    cdef bint held

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)

    cdef const double *vector(self, object array, str name, Py_ssize_t length) except NULL:
        self._take(array, name, 1, PyBUF_FORMAT | PyBUF_STRIDES)
        if self.view.shape[0] != length:
            raise ValueError(f"{name} has {self.view.shape[0]} values, expected {length}")
        return <const double *>self.view.buf

    cdef double *matrix(self, object array, str name, int flags) except NULL:
        self._take(array, name, 2, flags | PyBUF_FORMAT | PyBUF_STRIDES)
        return <double *>self.view.buf

    cdef int _take(self, object array, str name, int ndim, int flags) except -1:
        PyObject_GetBuffer(array, &self.view, flags)
        self.held = True
        cdef const char *format = self.view.format
        if self.view.itemsize != 8 or format == NULL or format[0] != b"d" or format[1] != 0:
            raise TypeError(f"{name} must hold aligned float64 in native byte order")
        if self.view.ndim != ndim:
            raise ValueError(f"{name} has {self.view.ndim} dimensions, expected {ndim}")
        cdef Py_ssize_t last = ndim - 1
        if self.view.shape[last] > 1 and self.view.strides[last] != 8:
            raise ValueError(f"the values of {name} must lie side by side in each row; pass np.ascontiguousarray({name})")
        if <uintptr_t>self.view.buf % 8 or (ndim == 2 and self.view.strides[0] % 8):
            raise ValueError(f"{name} is not aligned to 8 bytes; pass a copy")
        return 0

    cdef int64_t stride(self) noexcept:
        return self.view.strides[0] // 8


cdef object _mapped(n4a_statistic statistic, object X, object W, object b, object center, int64_t ddof, object out, int threads, int level):
    cdef n4a_map map
    cdef _View x = _View(), weights, intercept, middle, result = _View()
    map.x = x.matrix(X, "X", 0)
    map.x_stride, map.rows, map.columns, map.targets = x.stride(), x.view.shape[0], x.view.shape[1], x.view.shape[1]
    map.statistic, map.ddof, map.center, map.weights, map.intercept = statistic, ddof, NULL, NULL, NULL
    if W is not None:
        weights, intercept = _View(), _View()
        map.weights = _transposed(weights, W)
        map.weights_stride, map.targets = weights.stride(), weights.view.shape[0]
        if weights.view.shape[1] != map.columns:
            raise ValueError(f"W has {weights.view.shape[1]} rows, X has {map.columns} columns")
        map.intercept = intercept.vector(b, "b", map.targets)
    if center is not None:
        middle = _View()
        map.center = middle.vector(center, "center", map.columns)
    _check(&map, threads, level)
    if out is None:
        out = _empty((map.rows, map.targets))
    map.out = result.matrix(out, "out", PyBUF_WRITABLE)
    map.out_stride = result.stride()
    if result.view.shape[0] != map.rows or result.view.shape[1] != map.targets:
        raise ValueError(f"out has shape ({result.view.shape[0]}, {result.view.shape[1]}), expected ({map.rows}, {map.targets})")
    if _overlap(&x.view, &result.view):
        raise ValueError("out overlaps X")
    if level < 0:
        level = n4a_best_level(map.targets)
    if map.rows * map.columns < NOGIL_FROM:
        n4a_map_run(&map, threads, level)
    else:
        with nogil:
            n4a_map_run(&map, threads, level)
    return out


cdef const double *_transposed(_View view, object W) except NULL:
    """W by columns, copied where its columns do not lie side by side."""
    if not isinstance(W, np.ndarray):
        raise TypeError(f"W must be a numpy array, not {type(W).__name__}")
    turned = W.T
    cdef tuple strides = turned.strides
    if len(strides) == 2 and strides[1] != 8 and turned.shape[1] > 1:
        turned = np.ascontiguousarray(turned)
    return view.matrix(turned, "W", 0)


cdef int _check(const n4a_map *map, int threads, int level) except -1:
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")
    if level > _widest:
        raise ValueError(f"level {level} is not one of the {_widest + 1} instruction sets of this machine")
    if map.statistic == N4A_SNV and not 0 <= map.ddof < max(map.columns, 1):
        raise ValueError(f"ddof must be from 0 to {map.columns - 1} for rows of {map.columns} values, not {map.ddof}")
    return 0


cdef bint _overlap(const Py_buffer *a, const Py_buffer *b) noexcept:
    cdef uintptr_t first, last, other_first, other_last
    _extent(a, &first, &last)
    _extent(b, &other_first, &other_last)
    return first < other_last and other_first < last


cdef void _extent(const Py_buffer *view, uintptr_t *first, uintptr_t *end) noexcept:
    """From the lowest address of a matrix to behind its highest; nothing for an empty one."""
    first[0] = end[0] = <uintptr_t>view.buf
    if not view.shape[0] or not view.shape[1]:
        return
    cdef Py_ssize_t span = (view.shape[0] - 1) * view.strides[0]
    if span < 0:
        first[0] += span
    else:
        end[0] += span
    end[0] += 8 * view.shape[1]
