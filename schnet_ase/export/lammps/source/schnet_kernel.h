/* -*- c++ -*- ----------------------------------------------------------
   Part of schnet_ase (MIT licence), for LAMMPS.

   Energies and forces of the networks of a group, forward and backward pass
   written out, as schnet_ase/engine/kernel.py derives them:

     h = x A + a,  y_i = sum_j h_j * W(r_ij),  x <- x + act(y B + b) C + c,

   with g = dE/dy, and dE/dr_ij = sum W'(r_ij) * (g_i h_j + g_j h_i).

   A rank's pairs are of two kinds. Of a pair of its own atoms (or their
   periodic images) both ways are done here, with one look at the filter table.
   Of a pair whose second atom belongs to another rank this rank does what
   flows into its own atom, y_i and the term g_i h_j, and the other rank does the
   rest: so h and g travel one way, from an atom's rank to the ranks that see
   it, once an interaction each.

   Features come in blocks of one vector, (features / V, slots, V): the part of
   a table that one block needs stays in the fastest cache while all pairs go by.
------------------------------------------------------------------------- */

#ifndef SCHNET_KERNEL_H
#define SCHNET_KERNEL_H

#include "schnet_model.h"

#include <functional>
#include <memory>
#include <vector>

namespace SchNet {

/* The atoms and pairs of a rank. A slot is where an atom's features are: the rank's own atoms come first, then those of
   other ranks that it sees. */

struct System {
  int atoms = 0;                  // own
  int slots = 0;                  // all
  std::vector<int> element;       // (slots) -1: the model does not act on the atom
  std::vector<int> start;         // (2 * atoms + 1): pairs of an own atom with own ones, then with others'
  std::vector<int> second;        // (pairs) index of the second atom, an image if it is one, in LAMMPS's arrays
  std::vector<int> slot;          // (pairs) its slot
};

/* What travels between ranks. */

enum class Field { H, G };

/* Gives the slots of other ranks' atoms the numbers that are in their own; called between two interactions. */

using Exchange = std::function<void(Field field, int layer)>;

class Kernel {
 public:
  virtual ~Kernel() = default;

  virtual void take(const System &system) = 0;

  /* One call: afterwards `energy`, `slope` and the pairs within the cutoff are those of the positions x. */
  virtual void run(const double *const *x, const Exchange &exchange, int threads) = 0;

  /* What a slot sends in `field` of `layer`: reals of all members, in `doubles()` doubles. */
  virtual int doubles() const = 0;
  virtual void pack(Field field, int layer, int slot, double *buffer) const = 0;
  virtual void unpack(Field field, int layer, int slot, const double *buffer) = 0;

  /* eV, of an own atom; of one that the model does not act on zero. */
  virtual double energy(int member, int atom) const = 0;

  /* f[member][atom][3] += forces of all atoms in LAMMPS's arrays, `stride` atoms a member, in `unit` times eV/A. If `mean`,
     the mean of the members is added to f[atom][3] instead, and `pair` is called with each pair's dE/d(vector). */
  using OnPair = std::function<void(int i, int j, const double *vector, const double *gradient)>;
  virtual void add_forces(double *f, size_t stride, bool mean, double unit, const OnPair &pair) = 0;

  virtual double bytes() const = 0;
};

std::unique_ptr<Kernel> make_kernel(const Group &group, const Repulsion &repulsion, size_t elements, bool single);

}    // namespace SchNet

#endif
