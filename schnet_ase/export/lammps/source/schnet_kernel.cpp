/* ----------------------------------------------------------------------
   Part of schnet_ase (MIT licence), for LAMMPS. See schnet_kernel.h.
------------------------------------------------------------------------- */

#include "schnet_kernel.h"
#include "schnet_simd.h"

#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

using namespace SchNet;

namespace {

constexpr int TILE = 32;    // atoms whose dense layers are done together: what is between two layers stays in cache

int thread()
{
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

int filled(int n, int step) { return (n + step - 1) / step * step; }

/* exp(x) for |x| <= ln(2) / 2, and artanh(s) / s as a series in s^2 for s <= 1/3. */

template <class vec, class real> vec exp_series(vec x)
{
  constexpr int terms = sizeof(real) == 4 ? 8 : 15;
  real c[terms];
  c[0] = 1;
  for (int n = 1; n < terms; n++) c[n] = c[n - 1] / n;
  vec value = c[terms - 1] - vec{};
  for (int n = terms - 2; n >= 0; n--) value = value * x + c[n];
  return value;
}

template <class vec, class real> vec artanh_series(vec s2)
{
  constexpr int terms = sizeof(real) == 4 ? 8 : 17;
  vec value = real(1.0 / (2 * terms - 1)) - vec{};
  for (int n = terms - 2; n >= 0; n--) value = value * s2 + real(1.0 / (2 * n + 1));
  return value;
}

template <class real> class KernelOf : public Kernel {
  using S = Simd<real>;
  using vec = typename S::vec;
  using ivec = typename S::ivec;
  static constexpr int V = S::V;

 public:
  KernelOf(const Group &group, const Repulsion &repulsion, size_t elements);

  void take(const System &system) override;
  void run(const double *const *x, const Exchange &exchange, int threads) override;
  int doubles() const override { return (M * F * sizeof(real) + 7) / 8; }
  void pack(Field field, int layer, int slot, double *buffer) const override;
  void unpack(Field field, int layer, int slot, const double *buffer) override;
  double energy(int m, int atom) const override { return energies[size_t(m) * N + atom] + (repels ? repelled[atom] : 0.0); }
  void add_forces(double *f, size_t stride, bool mean, double unit, const OnPair &pair) override;
  double bytes() const override;

 private:
  /* The networks, features filled up with zeros to four whole vectors. */
  const int M, L, F, H, E, rows;
  const bool silu, readout_silu;
  const double width, cutoff;
  const bool repels;
  const Repulsion repulsion;
  Buffer<real> embedding, embedding_in, table, dense_weights, bias, readout, readout_transposed, readout_bias, output, zeros;
  std::vector<double> output_bias, scale, reference, factor;

  /* The rank's atoms, and the pairs among them within the cutoff: (2 N) ends of the rows in `system.start`. */
  const System *system = nullptr;
  int N = 0;
  size_t slots = 0, pairs = 0;
  int T = 1;
  std::vector<int> end;
  Buffer<int> second, slot_at, row;
  Buffer<real> u, slope;
  Buffer<double> vector;    // (pairs, 4): dx, dy, dz, r
  Buffer<real> x, h, g, sums, sigmoid, tile;
  std::vector<double> energies, repelled;    // (members, atoms) of the networks, (atoms) of the repulsion
  Buffer<double> push;                       // (pairs) slope of the repulsion

  real *at(Field field, int layer, int m, int f)
  {
    return field == Field::H ? &h[((size_t(m) * L + layer) * (F / V) + f) * slots * V] : &g[(size_t(m) * (F / V) + f) * slots * V];
  }
  const real *at(Field field, int layer, int m, int f) const { return const_cast<KernelOf *>(this)->at(field, layer, m, f); }
  const real *table_of(int m, int layer, int f) const { return &table[((size_t(m) * L + layer) * (F / V) + f) * rows * 6 * V]; }
  const real *dense_of(int m, int layer, int which) const { return &dense_weights[((size_t(m) * L + layer) * 6 + which) * F * F]; }

  void find_pairs(const double *const *positions, int i);
  void repel();
  void embed(int slot);
  void convolve(int m, int f, int layer);
  void convolve_back(int m, int f, int layer, real *slopes);
  void interact(int m, int layer, int first, int n, real *work);
  void interact_back(int m, int layer, int first, int n, real *work);
  void read_out(int m, int first, int n, real *work);
  void gate(int m, int layer, int first, int n, real *work);
  void copy_sums(int m, int first, int n, real *to);
  void activate(real *values, real *slopes, int n, bool is_silu) const;
  static void dense(const real *from, size_t from_rows, const real *weights, const real *bias, real *to, size_t to_rows,
                    int n, int n_in, int n_out, bool add);
};

/* A matrix value(i, o) as blocks of columns of four vectors: (n_out / 4V, rows, 4V), where rows is n_in filled up. */

template <class real, class Value> void by_columns(real *to, int n_in, int n_out, int rows, Value value)
{
  constexpr int step = 4 * Simd<real>::V;
  for (int o = 0; o < n_out; o++)
    for (int i = 0; i < n_in; i++) to[(size_t(o / step) * rows + i) * step + o % step] = value(i, o);
}

template <class real>
KernelOf<real>::KernelOf(const Group &group, const Repulsion &repulsion, size_t elements) :
    M(group.members), L(group.layers), F(filled(group.features, 4 * V)), H(filled(group.hidden, 4 * V)), E(elements),
    rows(group.rows), silu(group.silu), readout_silu(group.readout_silu), width(group.width), cutoff(group.cutoff),
    repels(group.repels), repulsion(repulsion)
{
  const int F0 = group.features, H0 = group.hidden;
  embedding.grow(size_t(M) * E * F);
  embedding_in.grow(size_t(M) * E * F);
  table.grow(size_t(M) * L * rows * 6 * F);
  dense_weights.grow(size_t(M) * L * 6 * F * F);
  bias.grow(size_t(M) * L * 3 * F);
  readout.grow(size_t(M) * F * H);
  readout_transposed.grow(size_t(M) * F * H);
  readout_bias.grow(size_t(M) * H);
  output.grow(size_t(M) * H);
  zeros.grow(std::max(F, H));
  for (int m = 0; m < M; m++) {
    const Network &network = group.networks[m];
    for (int e = 0; e < E; e++)
      for (int f = 0; f < F0; f++) {
        embedding[(size_t(m) * E + e) * F + f] = network.embedding[size_t(e) * F0 + f];
        embedding_in[(size_t(m) * E + e) * F + f] = network.embedding_in[size_t(e) * F0 + f];
      }
    for (int l = 0; l < L; l++) {
      for (int k = 0; k < rows; k++)
        for (int c = 0; c < 6; c++)
          for (int f = 0; f < F0; f++)
            table[(((size_t(m) * L + l) * (F / V) + f / V) * rows + k) * 6 * V + c * V + f % V] =
                network.table[((size_t(l) * rows + k) * 6 + c) * F0 + f];
      for (int n = 0; n < 3; n++) {
        const double *matrix = &network.dense[(size_t(l) * 3 + n) * F0 * F0];
        real *there = &dense_weights[((size_t(m) * L + l) * 6 + n) * F * F];
        real *back = &dense_weights[((size_t(m) * L + l) * 6 + 5 - n) * F * F];
        by_columns(there, F0, F0, F, [&](int i, int o) { return matrix[size_t(o) * F0 + i]; });
        by_columns(back, F0, F0, F, [&](int i, int o) { return matrix[size_t(i) * F0 + o]; });
        for (int f = 0; f < F0; f++) bias[((size_t(m) * L + l) * 3 + n) * F + f] = network.bias[(size_t(l) * 3 + n) * F0 + f];
      }
    }
    const double *matrix = network.readout.data();
    by_columns(&readout[size_t(m) * F * H], F0, H0, F, [&](int i, int o) { return matrix[size_t(o) * F0 + i]; });
    by_columns(&readout_transposed[size_t(m) * F * H], H0, F0, H, [&](int i, int o) { return matrix[size_t(i) * F0 + o]; });
    for (int k = 0; k < H0; k++) {
      readout_bias[size_t(m) * H + k] = network.readout_bias[k];
      output[size_t(m) * H + k] = network.output[k];
    }
    output_bias.push_back(network.output_bias[0]);
    scale.push_back(network.scale[0]);
    reference.insert(reference.end(), network.reference.begin(), network.reference.end());
  }
  factor.resize(M);
}

template <class real> void KernelOf<real>::take(const System &new_system)
{
  system = &new_system;
  N = system->atoms;
  slots = system->slots;
  pairs = system->second.size();
  const size_t more = pairs + pairs / 8, room = slots + slots / 16;    // the next list is a little longer or shorter
  if (pairs > second.bytes() / sizeof(int)) {
    second.grow(more);
    slot_at.grow(more);
    row.grow(more);
    u.grow(more);
    vector.grow(4 * more);
  }
  end.resize(2 * size_t(N));
  energies.resize(size_t(M) * N);
  if (repels) {
    repelled.resize(N);
    push.grow(more);
  }
  const size_t features = size_t(M) * F * slots;
  if (features > g.bytes() / sizeof(real)) {
    const size_t all = size_t(M) * F * room;
    x.grow(all);
    h.grow(all * L);
    g.grow(all);
    sums.grow(all);
    sigmoid.grow(all * L);
  }
}

template <class real> void KernelOf<real>::run(const double *const *positions, const Exchange &exchange, int threads)
{
  T = threads;
  const int tiles = (N + TILE - 1) / TILE, blocks = F / V / 2;
  const size_t work = 2 * size_t(std::max(F, H)) * TILE;
  tile.grow(T * work);
  slope.grow(size_t(T) * M * pairs);
  memset(slope.data(), 0, size_t(T) * M * pairs * sizeof(real));

#pragma omp parallel num_threads(threads)
  {
#pragma omp for schedule(dynamic, 4 * TILE)
    for (int i = 0; i < N; i++) find_pairs(positions, i);
#pragma omp for schedule(static)
    for (int s = 0; s < int(slots); s++) embed(s);
  }
  if (repels) repel();
  // Threads share no number they add to: of sums over pairs each has its own features, of layers its own atoms.
  for (int l = 0; l < L; l++) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int unit = 0; unit < M * blocks; unit++) convolve(unit / blocks, unit % blocks * 2, l);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int item = 0; item < M * tiles; item++) {
      const int first = item % tiles * TILE;
      interact(item / tiles, l, first, std::min(TILE, N - first), &tile[thread() * work]);
    }
    if (l < L - 1)
      exchange(Field::H, l + 1);
    else if (l > 0)
      exchange(Field::G, l);
  }
  for (int l = L - 1; l >= 0; l--) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int unit = 0; unit < M * blocks; unit++) {
      const int m = unit / blocks;
      convolve_back(m, unit % blocks * 2, l, &slope[(size_t(thread()) * M + m) * pairs]);
    }
    if (l == 0) break;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int item = 0; item < M * tiles; item++) {
      const int first = item % tiles * TILE;
      interact_back(item / tiles, l, first, std::min(TILE, N - first), &tile[thread() * work]);
    }
    if (l > 1) exchange(Field::G, l - 1);
  }
  for (int t = 1; t < T; t++)
    for (size_t p = 0; p < M * pairs; p++) slope[p] += slope[t * M * pairs + p];
}

template <class real> void KernelOf<real>::find_pairs(const double *const *positions, int i)
{
  const double cutoff2 = cutoff * cutoff, rows_per_angstrom = 1.0 / width, last = rows - 1;
  for (int kind = 0; kind < 2; kind++) {
    int q = system->start[2 * i + kind];
    for (int p = q; p < system->start[2 * i + kind + 1]; p++) {
      const int j = system->second[p];
      const double dx = positions[j][0] - positions[i][0];
      const double dy = positions[j][1] - positions[i][1];
      const double dz = positions[j][2] - positions[i][2];
      const double r2 = dx * dx + dy * dy + dz * dz;
      if (r2 >= cutoff2) continue;
      const double r = sqrt(r2), in_rows = std::min(r * rows_per_angstrom, last);
      const int k = static_cast<int>(in_rows);
      second[q] = j;
      slot_at[q] = system->slot[p] * V;
      row[q] = k * 6 * V;
      u[q] = in_rows - k;
      double *to = &vector[4 * size_t(q)];
      to[0] = dx;
      to[1] = dy;
      to[2] = dz;
      to[3] = r;
      q++;
    }
    end[2 * i + kind] = q;
  }
}

/* The repulsion of the pairs, in double precision whatever the networks have: near 0 A it is many orders larger than
   what they say. Each of the two ranks of a pair does half of it. */

template <class real> void KernelOf<real>::repel()
{
  const Repulsion &z = repulsion;
  std::fill(repelled.begin(), repelled.end(), 0.0);
  for (int i = 0; i < N; i++)
    for (int kind = 0; kind < 2; kind++)
      for (int p = system->start[2 * i + kind]; p < end[2 * i + kind]; p++) {
        const int j = slot_at[p] / V, a = system->element[i], b = system->element[j];
        push[p] = 0.0;
        if (a < 0 || b < 0) continue;
        const double r = vector[4 * size_t(p) + 3], reach = std::min(z.reach[a] + z.reach[b], cutoff);
        if (r >= reach) continue;
        const double s = z.screening[a] + z.screening[b], x = s * r, y = r / reach, y5 = y * y * y * y * y;
        const double e1 = 0.18175 * exp(-3.19980 * x), e2 = 0.50986 * exp(-0.94229 * x);
        const double e3 = 0.28022 * exp(-0.40290 * x), e4 = 0.02817 * exp(-0.20162 * x);
        const double screened = e1 + e2 + e3 + e4;
        const double screened_slope = -s * (3.19980 * e1 + 0.94229 * e2 + 0.40290 * e3 + 0.20162 * e4);
        const double off = 1.0 + y5 * y * (-28.0 + y * (48.0 - 21.0 * y));
        const double off_slope = -168.0 * y5 * (1.0 - y) * (1.0 - y) / reach;
        const double bare = z.coulomb * z.charge[a] * z.charge[b] / r, energy = bare * screened * off;
        push[p] = (kind ? 0.5 : 1.0) * (bare * (screened_slope * off + screened * off_slope) - energy / r);
        repelled[i] += 0.5 * energy;
        if (!kind) repelled[j] += 0.5 * energy;
      }
}

template <class real> void KernelOf<real>::embed(int s)
{
  const int e = system->element[s];
  for (int m = 0; m < M; m++)
    for (int f = 0; f < F / V; f++) {
      const size_t from = (size_t(m) * E + std::max(e, 0)) * F + f * V;
      S::store(at(Field::H, 0, m, f) + size_t(s) * V, S::load(&embedding_in[from]));
      if (s < N) S::store(&x[((size_t(m) * (F / V) + f) * slots + s) * V], S::load(&embedding[from]));
    }
}

template <class real> void KernelOf<real>::convolve(int m, int f, int layer)
{
  const real *h0 = at(Field::H, layer, m, f), *h1 = at(Field::H, layer, m, f + 1);
  const real *t0 = table_of(m, layer, f), *t1 = table_of(m, layer, f + 1);
  real *y0 = &sums[(size_t(m) * (F / V) + f) * slots * V], *y1 = y0 + slots * V;
  const auto filter = [](const real *t, vec v) {
    vec w = S::load(t + 5 * V) * v + S::load(t + 4 * V);
    w = w * v + S::load(t + 3 * V);
    w = w * v + S::load(t + 2 * V);
    w = w * v + S::load(t + V);
    return w * v + S::load(t);
  };
  memset(y0, 0, 2 * slots * V * sizeof(real));
  for (int i = 0; i < N; i++) {
    const vec h0_i = S::load(h0 + size_t(i) * V), h1_i = S::load(h1 + size_t(i) * V);
    vec y0_i{}, y1_i{};
    for (int p = system->start[2 * i]; p < end[2 * i]; p++) {
      const int j = slot_at[p], k = row[p];
      const vec v = S::splat(u[p]);
      vec w = filter(t0 + k, v);
      y0_i += w * S::load(h0 + j);
      S::store(y0 + j, S::load(y0 + j) + w * h0_i);
      w = filter(t1 + k, v);
      y1_i += w * S::load(h1 + j);
      S::store(y1 + j, S::load(y1 + j) + w * h1_i);
    }
    for (int p = system->start[2 * i + 1]; p < end[2 * i + 1]; p++) {
      const int j = slot_at[p], k = row[p];
      const vec v = S::splat(u[p]);
      y0_i += filter(t0 + k, v) * S::load(h0 + j);
      y1_i += filter(t1 + k, v) * S::load(h1 + j);
    }
    // Added last, not started from: an atom that sees its own image was also a second atom above.
    S::store(y0 + size_t(i) * V, S::load(y0 + size_t(i) * V) + y0_i);
    S::store(y1 + size_t(i) * V, S::load(y1 + size_t(i) * V) + y1_i);
  }
}

/* Gradients with respect to h into `sums` (but of the first interaction, whose h depends on the elements alone), and to
   the distances, added to `slopes`. */

template <class real> void KernelOf<real>::convolve_back(int m, int f, int layer, real *slopes)
{
  const real *h0 = at(Field::H, layer, m, f), *h1 = at(Field::H, layer, m, f + 1);
  const real *g0 = at(Field::G, 0, m, f), *g1 = at(Field::G, 0, m, f + 1);
  const real *t0 = table_of(m, layer, f), *t1 = table_of(m, layer, f + 1);
  real *y0 = &sums[(size_t(m) * (F / V) + f) * slots * V], *y1 = y0 + slots * V;
  const bool to_h = layer > 0;
  const auto filter = [](const real *t, vec v, vec &d) {
    d = S::load(t + 5 * V);
    vec w = d * v + S::load(t + 4 * V);
    d = d * v + w;
    w = w * v + S::load(t + 3 * V);
    d = d * v + w;
    w = w * v + S::load(t + 2 * V);
    d = d * v + w;
    w = w * v + S::load(t + V);
    d = d * v + w;
    return w * v + S::load(t);
  };
  if (to_h) memset(y0, 0, 2 * slots * V * sizeof(real));
  for (int i = 0; i < N; i++) {
    const vec h0_i = S::load(h0 + size_t(i) * V), h1_i = S::load(h1 + size_t(i) * V);
    const vec g0_i = S::load(g0 + size_t(i) * V), g1_i = S::load(g1 + size_t(i) * V);
    vec y0_i{}, y1_i{}, d;
    for (int p = system->start[2 * i]; p < end[2 * i]; p++) {
      const int j = slot_at[p], k = row[p];
      const vec v = S::splat(u[p]);
      vec g_j = S::load(g0 + j);
      vec w = filter(t0 + k, v, d);
      vec products = d * (g0_i * S::load(h0 + j) + g_j * h0_i);
      if (to_h) {
        y0_i += w * g_j;
        S::store(y0 + j, S::load(y0 + j) + w * g0_i);
      }
      g_j = S::load(g1 + j);
      w = filter(t1 + k, v, d);
      products += d * (g1_i * S::load(h1 + j) + g_j * h1_i);
      if (to_h) {
        y1_i += w * g_j;
        S::store(y1 + j, S::load(y1 + j) + w * g1_i);
      }
      slopes[p] += S::total(products);
    }
    for (int p = system->start[2 * i + 1]; p < end[2 * i + 1]; p++) {
      const int j = slot_at[p], k = row[p];
      const vec v = S::splat(u[p]);
      vec w = filter(t0 + k, v, d);
      vec products = d * (g0_i * S::load(h0 + j));
      if (to_h) y0_i += w * S::load(g0 + j);
      w = filter(t1 + k, v, d);
      products += d * (g1_i * S::load(h1 + j));
      if (to_h) y1_i += w * S::load(g1 + j);
      slopes[p] += S::total(products);
    }
    if (to_h) {
      S::store(y0 + size_t(i) * V, S::load(y0 + size_t(i) * V) + y0_i);
      S::store(y1 + size_t(i) * V, S::load(y1 + size_t(i) * V) + y1_i);
    }
  }
}

/* From the convolution of an interaction to h of the next; after the last, readout and the way back to g. */

template <class real> void KernelOf<real>::interact(int m, int l, int first, int n, real *work)
{
  real *other = work + size_t(std::max(F, H)) * TILE;
  const real *b = &bias[(size_t(m) * L + l) * 3 * F];
  real *x0 = &x[size_t(m) * F * slots + size_t(first) * V];
  copy_sums(m, first, n, work);
  dense(work, TILE, dense_of(m, l, 1), b + F, other, TILE, n, F, F, false);
  for (int f = 0; f < F / V; f++)
    activate(other + size_t(f) * TILE * V, &sigmoid[(((size_t(m) * L + l) * (F / V) + f) * slots + first) * V], n * V, silu);
  dense(other, TILE, dense_of(m, l, 2), b + 2 * F, x0, slots, n, F, F, true);
  if (l < L - 1)
    dense(x0, slots, dense_of(m, l + 1, 0), b + 3 * F, at(Field::H, l + 1, m, 0) + size_t(first) * V, slots, n, F, F, false);
  else {
    read_out(m, first, n, work);
    gate(m, l, first, n, work);
  }
}

/* Per-atom energies, and x becomes the gradient with respect to it. */

template <class real> void KernelOf<real>::read_out(int m, int first, int n, real *work)
{
  real *slopes = work + size_t(std::max(F, H)) * TILE;
  real *x0 = &x[size_t(m) * F * slots + size_t(first) * V];
  const size_t W = size_t(m) * F * H;
  dense(x0, slots, &readout[W], &readout_bias[size_t(m) * H], work, TILE, n, F, H, false);
  for (int f = 0; f < H / V; f++) activate(work + size_t(f) * TILE * V, slopes + size_t(f) * TILE * V, n * V, readout_silu);
  for (int i = 0; i < n; i++) {
    double energy = output_bias[m];
    for (int k = 0; k < H; k++) {
      const size_t a = (size_t(k / V) * TILE + i) * V + k % V;
      const real w = output[size_t(m) * H + k];
      energy += double(w) * work[a];
      work[a] = w * slopes[a];
    }
    const int e = system->element[first + i];
    energies[size_t(m) * N + first + i] = e < 0 ? 0.0 : scale[m] * energy + reference[size_t(m) * E + e];
  }
  dense(work, TILE, &readout_transposed[W], zeros.data(), x0, slots, n, H, F, false);
}

/* From the gradient with respect to an interaction's h to the g of the interaction before. */

template <class real> void KernelOf<real>::interact_back(int m, int l, int first, int n, real *work)
{
  copy_sums(m, first, n, work);
  dense(work, TILE, dense_of(m, l, 5), zeros.data(), &x[size_t(m) * F * slots + size_t(first) * V], slots, n, F, F, true);
  gate(m, l - 1, first, n, work);
}

/* g of an interaction: the gradient with respect to x back through C, the activation and B. */

template <class real> void KernelOf<real>::gate(int m, int l, int first, int n, real *work)
{
  const real *x0 = &x[size_t(m) * F * slots + size_t(first) * V];
  dense(x0, slots, dense_of(m, l, 3), zeros.data(), work, TILE, n, F, F, false);
  for (int f = 0; f < F / V; f++) {
    const real *slopes = &sigmoid[(((size_t(m) * L + l) * (F / V) + f) * slots + first) * V];
    real *values = work + size_t(f) * TILE * V;
    for (int i = 0; i < n * V; i += V) S::store(values + i, S::load(values + i) * S::load(slopes + i));
  }
  dense(work, TILE, dense_of(m, l, 4), zeros.data(), at(Field::G, 0, m, 0) + size_t(first) * V, slots, n, F, F, false);
}

template <class real> void KernelOf<real>::copy_sums(int m, int first, int n, real *to)
{
  for (int f = 0; f < F / V; f++)
    memcpy(to + size_t(f) * TILE * V, &sums[((size_t(m) * (F / V) + f) * slots + first) * V], n * V * sizeof(real));
}

/* ssp(x) = max(x, 0) + ln(1 + t) - ln 2 with t = exp(-|x|), or silu(x) = x sigma(x), and the slope. */

template <class real> void KernelOf<real>::activate(real *values, real *slopes, int n, bool is_silu) const
{
  constexpr bool single = sizeof(real) == 4;
  constexpr double LN2 = 0.69314718055994530942, LN2_HIGH = 0x1.62e4p-1;    // its product with an exponent is exact
  const vec magic = S::splat(single ? 0x1.8p23 : 0x1.8p52);    // leaves the nearest integer in the last bits
  const vec lowest = S::splat(single ? -87.0 : -708.0), zero{}, one = S::splat(1), two = S::splat(2);
  const vec log2e = S::splat(1.0 / LN2), high = S::splat(-LN2_HIGH), low = S::splat(LN2_HIGH - LN2), ln2 = S::splat(LN2);
  for (int i = 0; i < n; i += V) {
    const vec v = S::load(values + i);
    vec y = v < zero ? v : -v;
    y = y < lowest ? lowest : y;
    const vec shifted = y * log2e + magic;
    const vec k = shifted - magic;
    y = (k * high + y) + k * low;
    const vec e = exp_series<vec, real>(y);
    const vec t = (vec) ((ivec) e + ((ivec) shifted << (single ? 23 : 52)));
    const vec sigma = (v < zero ? t : one) / (one + t);
    if (is_silu) {
      S::store(values + i, v * sigma);
      S::store(slopes + i, (v * sigma) * (one - sigma) + sigma);
    } else {
      const vec s = t / (two + t);
      S::store(values + i, (v < zero ? zero : v) + (two * s * artanh_series<vec, real>(s * s) - ln2));
      S::store(slopes + i, sigma);
    }
  }
}

/* to = from @ weights + bias, or that added; two atoms times four vectors of outputs in registers at a time. */

template <class real>
void KernelOf<real>::dense(const real *from, size_t from_rows, const real *weights, const real *bias, real *to,
                           size_t to_rows, int n, int n_in, int n_out, bool add)
{
  const size_t step = to_rows * V;
  for (int f = 0; f < n_out; f += 4 * V)
    for (int i = 0; i < n; i += 2) {
      const int j = std::min(i + 1, n - 1);
      real *to_i = to + (f / V * to_rows + i) * V, *to_j = to + (f / V * to_rows + j) * V;
      vec s0 = S::load(bias + f), s1 = S::load(bias + f + V), s2 = S::load(bias + f + 2 * V), s3 = S::load(bias + f + 3 * V);
      vec t0 = s0, t1 = s1, t2 = s2, t3 = s3;
      if (add) {
        s0 += S::load(to_i), s1 += S::load(to_i + step), s2 += S::load(to_i + 2 * step), s3 += S::load(to_i + 3 * step);
        t0 += S::load(to_j), t1 += S::load(to_j + step), t2 += S::load(to_j + 2 * step), t3 += S::load(to_j + 3 * step);
      }
      const real *w = weights + size_t(f) * n_in;
      for (int block = 0; block < n_in / V; block++) {
        const real *from_i = from + (block * from_rows + i) * V, *from_j = from + (block * from_rows + j) * V;
        for (int v = 0; v < V; v++, w += 4 * V) {
          const vec s = S::splat(from_i[v]), t = S::splat(from_j[v]);
          const vec a = S::load(w), b = S::load(w + V), c = S::load(w + 2 * V), d = S::load(w + 3 * V);
          s0 += s * a, t0 += t * a;
          s1 += s * b, t1 += t * b;
          s2 += s * c, t2 += t * c;
          s3 += s * d, t3 += t * d;
        }
      }
      S::store(to_i, s0), S::store(to_i + step, s1), S::store(to_i + 2 * step, s2), S::store(to_i + 3 * step, s3);
      S::store(to_j, t0), S::store(to_j + step, t1), S::store(to_j + 2 * step, t2), S::store(to_j + 3 * step, t3);
    }
}

template <class real> void KernelOf<real>::pack(Field field, int layer, int slot, double *buffer) const
{
  real *to = reinterpret_cast<real *>(buffer);
  for (int m = 0; m < M; m++)
    for (int f = 0; f < F / V; f++, to += V) memcpy(to, at(field, layer, m, f) + size_t(slot) * V, 32);
}

template <class real> void KernelOf<real>::unpack(Field field, int layer, int slot, const double *buffer)
{
  const real *from = reinterpret_cast<const real *>(buffer);
  for (int m = 0; m < M; m++)
    for (int f = 0; f < F / V; f++, from += V) memcpy(at(field, layer, m, f) + size_t(slot) * V, from, 32);
}

template <class real> void KernelOf<real>::add_forces(double *f, size_t stride, bool mean, double unit, const OnPair &on_pair)
{
  for (int m = 0; m < M; m++) factor[m] = unit * scale[m] / width / (mean ? M : 1);
  for (int i = 0; i < N; i++)
    for (int kind = 0; kind < 2; kind++)
      for (int p = system->start[2 * i + kind]; p < end[2 * i + kind]; p++) {
        const double *d = &vector[4 * size_t(p)];
        const double pushed = repels ? unit * push[p] : 0.0;
        double slope_sum = pushed;
        for (int m = 0; m < M; m++) {
          const double dE_dr = factor[m] * slope[m * pairs + p];
          slope_sum += dE_dr;
          if (mean) continue;
          double *f_i = f + 3 * (m * stride + i), *f_j = f + 3 * (m * stride + second[p]);
          for (int a = 0; a < 3; a++) {
            const double force = (dE_dr + pushed) / d[3] * d[a];
            f_i[a] += force;
            f_j[a] -= force;
          }
        }
        if (!mean) continue;
        double gradient[3];
        for (int a = 0; a < 3; a++) {
          gradient[a] = slope_sum / d[3] * d[a];
          f[3 * size_t(i) + a] += gradient[a];
          f[3 * size_t(second[p]) + a] -= gradient[a];
        }
        if (on_pair) on_pair(i, second[p], d, gradient);
      }
}

template <class real> double KernelOf<real>::bytes() const
{
  return double(table.bytes() + second.bytes() + slot_at.bytes() + row.bytes() + u.bytes() + slope.bytes() + vector.bytes() +
                push.bytes() + x.bytes() + h.bytes() + g.bytes() + sums.bytes() + sigmoid.bytes());
}

}    // namespace

std::unique_ptr<Kernel> SchNet::make_kernel(const Group &group, const Repulsion &repulsion, size_t elements, bool single)
{
  if (single) return std::unique_ptr<Kernel>(new KernelOf<float>(group, repulsion, elements));
  return std::unique_ptr<Kernel>(new KernelOf<double>(group, repulsion, elements));
}
