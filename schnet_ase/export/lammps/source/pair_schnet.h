/* -*- c++ -*- ----------------------------------------------------------
   LAMMPS - Large-scale Atomic/Molecular Massively Parallel Simulator
   https://www.lammps.org/

   Part of schnet_ase (MIT licence): SchNet, single or as an ensemble.
------------------------------------------------------------------------- */

#ifdef PAIR_CLASS
// clang-format off
PairStyle(schnet,PairSchNet);
// clang-format on
#else

#ifndef LMP_PAIR_SCHNET_H
#define LMP_PAIR_SCHNET_H

#include "pair.h"
#include "schnet_kernel.h"

#include <memory>
#include <vector>

namespace LAMMPS_NS {

class PairSchNet : public Pair {
 public:
  PairSchNet(class LAMMPS *);
  ~PairSchNet() override;

  void compute(int, int) override;
  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void *extract(const char *, int &) override;
  void *extract_peratom(const char *, int &) override;
  double memory_usage() override;

  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

 private:
  SchNet::Model model;
  std::vector<std::unique_ptr<SchNet::Kernel>> kernels;    // the one that drives, and one that watches, if any
  double cutoff = 0.0;                                     // Angstrom, the largest of them
  double unit = 1.0;                                       // what one eV is in the units of the run

  SchNet::System system;
  std::vector<int> owner, slot;    // (ghosts, 2) rank and index of the owner; (all atoms) slot

  enum class Sent { OWNER, FIELD };    // what forward_comm sends
  Sent sent = Sent::OWNER;
  SchNet::Kernel *sender = nullptr;
  SchNet::Field field = SchNet::Field::H;
  int layer = 0;

  std::vector<double> member_forces;    // (members, all atoms, 3)
  std::vector<double> deviation, half_width;
  int deviation_flag = 0;                         // set by `fix pair` for a step on which it will ask
  bool triggered = false, per_atom_asked = false;

  void allocate();
  void find_slots();
  void find_pairs();
  void run(SchNet::Kernel &);
  void add_forces(SchNet::Kernel &);
  void look(SchNet::Kernel &);
  bool looks() const;
};

}    // namespace LAMMPS_NS

#endif
#endif
