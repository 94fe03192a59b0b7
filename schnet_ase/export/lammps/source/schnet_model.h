/* -*- c++ -*- ----------------------------------------------------------
   Part of schnet_ase (MIT licence), for LAMMPS.

   The file that `schnet-ase lammps export` writes: lines "key value ...", an
   empty line, and numbers in little-endian order. Reading it runs nothing of
   it; whatever is not as it should be throws a ModelError.
------------------------------------------------------------------------- */

#ifndef SCHNET_MODEL_H
#define SCHNET_MODEL_H

#include <stdexcept>
#include <string>
#include <vector>

namespace SchNet {

struct ModelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/* The numbers of one network. */

struct Network {
  std::vector<double> embedding;       // (elements, features)
  std::vector<double> embedding_in;    // (elements, features): h of the first interaction
  std::vector<double> table;           // (layers, rows, 6, features): quintics of the distance
  std::vector<double> dense;           // (layers, 3, features out, features in)
  std::vector<double> bias;            // (layers, 3, features)
  std::vector<double> readout;         // (hidden, features)
  std::vector<double> readout_bias;    // (hidden)
  std::vector<double> output;          // (hidden)
  std::vector<double> output_bias;     // (1)
  std::vector<double> scale;           // (1) eV
  std::vector<double> reference;       // (elements) eV
};

/* Networks of one shape, which are evaluated together. */

struct Group {
  int members = 0, layers = 0, features = 0, hidden = 0, rows = 0;
  double width = 0.0;     // of an interval of the tables, A
  double cutoff = 0.0;    // A
  bool silu = false, readout_silu = false;    // else the shifted softplus
  bool repels = false;    // the repulsion of nuclei is added
  std::vector<Network> networks;
};

/* The repulsion of Ziegler, Biersack and Littmark, switched off at R, as schnet_ase/priors/zbl.py derives it. Of a pair
   of elements R is the sum of their `reach` (but not beyond the cutoff), and 1 / a that of their `screening`. */

struct Repulsion {
  double coulomb = 0.0;              // eV A
  std::vector<double> charge;        // (elements) atomic numbers
  std::vector<double> reach;         // (elements) A
  std::vector<double> screening;     // (elements) 1 / A
};

/* Half-widths u(s) * quantile of the error of a force, u^2 = (1 - weight) s^2 + weight spread^2, where the spread s is
   the deviation times the factor of the atom's element. */

struct Calibration {
  double coverage = 0.0;    // 0: there is none
  double prior_spread = 0.0, prior_weight = 0.0, quantile = 0.0;
  std::vector<double> factors;    // by element
};

struct Model {
  std::string name, dtype;
  std::vector<std::string> elements;
  double threshold = 0.0;    // eV/A; 0: there is none
  Calibration calibration;
  Repulsion repulsion;
  std::vector<Group> groups;    // the first drives; a second one, if any, is the ensemble that watches it
};

/* From the bytes of a file; `file` is its name, for messages. */

Model read_model(const std::string &file, const std::vector<char> &bytes);

}    // namespace SchNet

#endif
