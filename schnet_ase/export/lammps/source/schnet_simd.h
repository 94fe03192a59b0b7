/* -*- c++ -*- ----------------------------------------------------------
   Part of schnet_ase (MIT licence), for LAMMPS.

   Vectors of 32 bytes by the vector extension of GCC and Clang: eight floats
   or four doubles, one register where the compiler is told of AVX2
   (-march=native), two or four of SSE or NEON elsewhere.
------------------------------------------------------------------------- */

#ifndef SCHNET_SIMD_H
#define SCHNET_SIMD_H

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace SchNet {

template <class real> struct Simd {
  static constexpr int V = 32 / sizeof(real);
  using integer = std::conditional_t<sizeof(real) == 4, int32_t, int64_t>;
  typedef real vec __attribute__((vector_size(32), may_alias));
  typedef integer ivec __attribute__((vector_size(32)));

  static vec load(const real *p) { return *reinterpret_cast<const vec *>(p); }
  static void store(real *p, vec v) { *reinterpret_cast<vec *>(p) = v; }
  static vec splat(real s) { return s - vec{}; }

  static real total(vec v)
  {
    real part[V];
    memcpy(part, &v, sizeof v);
    for (int width = V / 2; width > 0; width /= 2)
      for (int i = 0; i < width; i++) part[i] += part[i + width];
    return part[0];
  }
};

/* Memory that begins at a cache line and only grows. */

template <class T> class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
  ~Buffer() { release(); }

  void grow(size_t n)
  {
    if (n <= size_) return;
    release();
    data_ = static_cast<T *>(operator new[](n * sizeof(T), std::align_val_t(64)));
    memset(static_cast<void *>(data_), 0, n * sizeof(T));
    size_ = n;
  }
  T *data() { return data_; }
  const T *data() const { return data_; }
  T &operator[](size_t i) { return data_[i]; }
  const T &operator[](size_t i) const { return data_[i]; }
  size_t bytes() const { return size_ * sizeof(T); }

 private:
  void release()
  {
    if (data_) operator delete[](data_, std::align_val_t(64));
    data_ = nullptr;
    size_ = 0;
  }
  T *data_ = nullptr;
  size_t size_ = 0;
};

}    // namespace SchNet

#endif
