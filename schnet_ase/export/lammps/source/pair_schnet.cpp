/* ----------------------------------------------------------------------
   LAMMPS - Large-scale Atomic/Molecular Massively Parallel Simulator
   https://www.lammps.org/

   Part of schnet_ase (MIT licence): SchNet, single or as an ensemble.

     pair_style schnet
     pair_coeff * * FILE O H          one element for each atom type, NULL for none

   FILE is written by `schnet-ase lammps export`. The deviation of the members' forces on each atom is read by
   `fix pair`, the members' energies by `compute pair`.
------------------------------------------------------------------------- */

#include "pair_schnet.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

using namespace LAMMPS_NS;

PairSchNet::PairSchNet(LAMMPS *lmp) : Pair(lmp)
{
  restartinfo = 0;    // pair_coeff names the file again after read_restart
  one_coeff = 1;
  manybody_flag = 1;
  single_enable = 0;    // no energy of one pair: compute group/group is refused
  centroidstressflag = CENTROID_NOTAVAIL;
}

PairSchNet::~PairSchNet()
{
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
  delete[] pvector;
}

void PairSchNet::allocate()
{
  allocated = 1;
  const int n = atom->ntypes;
  memory->create(setflag, n + 1, n + 1, "pair:setflag");
  memory->create(cutsq, n + 1, n + 1, "pair:cutsq");
  map = new int[n + 1];
}

void PairSchNet::settings(int narg, char **)
{
  if (narg) error->all(FLERR, "pair_style schnet takes no arguments; pair_coeff names the file");
}

void PairSchNet::coeff(int narg, char **arg)
{
  if (!allocated) allocate();
  if (narg != 3 + atom->ntypes)
    error->all(FLERR, "pair_coeff of schnet has {} arguments, but there are {} atom types; expected * * FILE and an element (or NULL) for each type",
               narg, atom->ntypes);

  // One rank reads, so that a thousand do not ask for the same file.
  std::vector<char> bytes;
  bigint size = -1;
  if (comm->me == 0) {
    std::ifstream file(arg[2], std::ios::binary);
    std::vector<char> block(1 << 20);
    while (file.read(block.data(), block.size()) || file.gcount() > 0)
      bytes.insert(bytes.end(), block.begin(), block.begin() + file.gcount());
    if (file.eof()) size = bytes.size();    // of a folder no end is reached
  }
  MPI_Bcast(&size, 1, MPI_LMP_BIGINT, 0, world);
  if (size < 0) error->all(FLERR, "pair style schnet: cannot read {}; write it with: schnet-ase lammps export", arg[2]);
  if (size > MAXSMALLINT) error->all(FLERR, "pair style schnet: {} is larger than 2 GB", arg[2]);
  bytes.resize(size);
  MPI_Bcast(bytes.data(), static_cast<int>(size), MPI_CHAR, 0, world);
  try {
    model = SchNet::read_model(arg[2], bytes);
  } catch (SchNet::ModelError &problem) {
    error->all(FLERR, problem.what());
  }

  for (int type = 1; type <= atom->ntypes; type++) {
    const std::string symbol = arg[2 + type];
    const auto found = std::find(model.elements.begin(), model.elements.end(), symbol);
    map[type] = found == model.elements.end() ? -1 : static_cast<int>(found - model.elements.begin());
    if (map[type] < 0 && symbol != "NULL") {
      std::string known;
      for (auto &element : model.elements) known += " " + element;
      error->all(FLERR, "pair style schnet: {} of atom type {} is none of the elements of {}:{}", symbol, type, arg[2], known);
    }
  }
  for (int i = 1; i <= atom->ntypes; i++)
    for (int j = i; j <= atom->ntypes; j++) setflag[i][j] = map[i] >= 0 && map[j] >= 0;

  kernels.clear();
  comm_forward = 2;
  comm_reverse = 0;
  cutoff = 0.0;
  for (auto &group : model.groups) {
    kernels.push_back(SchNet::make_kernel(group, model.repulsion, model.elements.size(), model.dtype == "float32"));
    comm_forward = std::max(comm_forward, kernels.back()->doubles());
    cutoff = std::max(cutoff, group.cutoff);
  }
  const int members = model.groups.back().members;
  if (members > 1) comm_reverse = 3 * members;
  nextra = members;
  delete[] pvector;
  pvector = new double[nextra];
  std::fill_n(pvector, nextra, 0.0);
  if (comm->me == 0) {
    utils::logmesg(lmp, "pair style schnet: {} in {}, {} network{}, cutoff {:g} Angstrom{}\n", model.name, model.dtype,
                   members, members > 1 ? "s" : "", cutoff, kernels.size() > 1 ? ", driven by their student" : "");
    if (model.threshold > 0.0) utils::logmesg(lmp, "pair style schnet: flag deviations above {:g} eV/Angstrom\n", model.threshold);
  }
}

void PairSchNet::init_style()
{
  if (strcmp(update->unit_style, "metal") == 0)
    unit = 1.0;
  else if (strcmp(update->unit_style, "real") == 0)
    unit = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else
    error->all(FLERR, "pair style schnet needs units metal or real, but units are {}", update->unit_style);
  if (!force->newton_pair) error->all(FLERR, "pair style schnet needs newton pair on; write: newton on");
  if (atom->molecular != Atom::ATOMIC && atom->nbonds > 0)
    for (int k = 1; k <= 3; k++)
      if (force->special_lj[k] == 0.0 && force->special_coul[k] == 0.0)
        error->all(FLERR, "pair style schnet sees every pair, but special_bonds leaves out bonded ones; write: special_bonds lj/coul 1 1 1");
  if (neighbor->nex_type + neighbor->nex_group + neighbor->nex_mol > 0 && comm->me == 0)
    error->warning(FLERR, "pair style schnet: neigh_modify exclude takes neighbors away from the network, so that atoms near excluded ones feel other forces");
  // A hybrid style asked how much is sent before pair_coeff had named the file.
  force->pair->comm_forward = std::max(force->pair->comm_forward, comm_forward);
  force->pair->comm_reverse = std::max(force->pair->comm_reverse, comm_reverse);
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairSchNet::init_one(int i, int j)
{
  if (setflag[i][j] == 0) error->all(FLERR, "pair style schnet: no pair_coeff of atom types {} and {}", i, j);
  return cutoff;
}

void PairSchNet::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  if (neighbor->ago == 0) {
    find_slots();
    find_pairs();
    for (auto &kernel : kernels) kernel->take(system);
  }
  SchNet::Kernel &driver = *kernels.front(), &watcher = *kernels.back();
  const int driving = model.groups.front().members;
  run(driver);
  for (int i = 0; i < atom->nlocal; i++) {
    double energy = 0.0;
    for (int m = 0; m < driving; m++) energy += unit * driver.energy(m, i) / driving;
    if (eflag_global) eng_vdwl += energy;
    if (eflag_atom) eatom[i] += energy;
  }
  add_forces(driver);
  if (vflag_fdotr) virial_fdotr_compute();
  if (looks()) {
    if (&watcher != &driver) run(watcher);
    look(watcher);
  }
}

void PairSchNet::run(SchNet::Kernel &kernel)
{
  kernel.run(atom->x, [&](SchNet::Field its_field, int its_layer) {
    if (comm->nprocs == 1) return;    // every ghost is an image of an own atom
    sent = Sent::FIELD;
    sender = &kernel;
    field = its_field;
    layer = its_layer;
    comm->forward_comm(this, kernel.doubles());
  }, comm->nthreads);
}

void PairSchNet::add_forces(SchNet::Kernel &kernel)
{
  SchNet::Kernel::OnPair on_pair;
  if (vflag_atom)
    on_pair = [&](int i, int j, const double *d, const double *gradient) {
      // Half of (x_i - x_j) f_i to each, where d is x_j - x_i and the gradient with respect to it is f_i.
      const double v[6] = {-0.5 * d[0] * gradient[0], -0.5 * d[1] * gradient[1], -0.5 * d[2] * gradient[2],
                           -0.5 * d[0] * gradient[1], -0.5 * d[0] * gradient[2], -0.5 * d[1] * gradient[2]};
      for (int a = 0; a < 6; a++) {
        vatom[i][a] += v[a];
        vatom[j][a] += v[a];
      }
    };
  const int all = atom->nlocal + atom->nghost;
  if (all == 0) return;
  kernel.add_forces(&atom->f[0][0], all, true, unit, on_pair);
}

/* The deviation of the members' forces on each atom, and the half-width of its error. */

void PairSchNet::look(SchNet::Kernel &kernel)
{
  const int members = model.groups.back().members, nlocal = atom->nlocal;
  const size_t all = nlocal + atom->nghost;
  member_forces.assign(3 * members * all, 0.0);
  kernel.add_forces(member_forces.data(), all, false, unit, nullptr);
  comm->reverse_comm(this);
  deviation.assign(atom->nmax, 0.0);
  half_width.assign(atom->nmax, 0.0);
  std::fill_n(pvector, members, 0.0);
  for (int m = 0; m < members; m++)
    for (int i = 0; i < nlocal; i++) pvector[m] += unit * kernel.energy(m, i);
  const auto &calibration = model.calibration;
  for (int i = 0; i < nlocal; i++) {
    double squares = 0.0;
    for (int a = 0; a < 3; a++) {
      double mean = 0.0;
      for (int m = 0; m < members; m++) mean += member_forces[3 * (m * all + i) + a] / members;
      for (int m = 0; m < members; m++) squares += pow(member_forces[3 * (m * all + i) + a] - mean, 2);
    }
    deviation[i] = sqrt(squares / (members - 1));
    if (calibration.coverage == 0.0 || system.element[i] < 0) continue;
    const double spread = calibration.factors[system.element[i]] * deviation[i], prior = unit * calibration.prior_spread;
    half_width[i] = calibration.quantile *
        sqrt((1.0 - calibration.prior_weight) * spread * spread + calibration.prior_weight * prior * prior);
  }
}

/* An ensemble that drives looks at each step, since its members are computed anyway; one that watches a student where
   `fix pair` asks for it, by its trigger if it has one. */

bool PairSchNet::looks() const
{
  if (model.groups.back().members < 2) return false;
  return kernels.size() == 1 || (triggered ? deviation_flag : per_atom_asked);
}

/* ----------------------------------------------------------------------
   atoms and pairs, after each new neighbor list
------------------------------------------------------------------------- */

void PairSchNet::find_slots()
{
  const int nlocal = atom->nlocal, all = nlocal + atom->nghost;
  owner.resize(2 * size_t(all));
  for (int i = 0; i < nlocal; i++) {
    owner[2 * i] = comm->me;
    owner[2 * i + 1] = i;
  }
  sent = Sent::OWNER;
  comm->forward_comm(this, 2);
  slot.resize(all);
  system.atoms = system.slots = nlocal;
  system.element.resize(nlocal);
  for (int i = 0; i < nlocal; i++) {
    slot[i] = i;
    system.element[i] = map[atom->type[i]];
  }
  for (int j = nlocal; j < all; j++) {
    const bool own = owner[2 * j] == comm->me;
    slot[j] = own ? owner[2 * j + 1] : system.slots++;
    if (!own) system.element.push_back(map[atom->type[j]]);
  }
}

void PairSchNet::find_pairs()
{
  const int nlocal = atom->nlocal;
  double **x = atom->x;
  std::vector<int> row(nlocal, -1);
  for (int ii = 0; ii < list->inum; ii++) row[list->ilist[ii]] = ii;
  system.start.assign(2 * size_t(nlocal) + 1, 0);
  system.second.clear();
  system.slot.clear();
  for (int i = 0; i < nlocal; i++)
    for (int others = 0; others < 2; others++) {
      if (row[i] >= 0) {
        const int *neighbors = list->firstneigh[i];
        for (int jj = 0; jj < list->numneigh[i]; jj++) {
          const int j = neighbors[jj] & NEIGHMASK;
          if (others != (slot[j] >= nlocal)) continue;
          if (!others) {
            // Once of the two ways in which a full list has it; of an atom and its own image the upper one.
            if (slot[j] < i) continue;
            if (slot[j] == i) {
              const double dz = x[j][2] - x[i][2], dy = x[j][1] - x[i][1], dx = x[j][0] - x[i][0];
              if (dz < 0.0 || (dz == 0.0 && (dy < 0.0 || (dy == 0.0 && dx < 0.0)))) continue;
            }
          }
          system.second.push_back(j);
          system.slot.push_back(slot[j]);
        }
      }
      system.start[2 * i + others + 1] = static_cast<int>(system.second.size());
    }
}

/* ----------------------------------------------------------------------
   communication
------------------------------------------------------------------------- */

int PairSchNet::pack_forward_comm(int n, int *atoms, double *buf, int, int *)
{
  const int size = sent == Sent::OWNER ? 2 : sender->doubles();
  for (int k = 0; k < n; k++, buf += size) {
    const int i = atoms[k];
    if (sent == Sent::OWNER) {
      buf[0] = owner[2 * i];
      buf[1] = owner[2 * i + 1];
    } else
      sender->pack(field, layer, slot[i], buf);
  }
  return n * size;
}

void PairSchNet::unpack_forward_comm(int n, int first, double *buf)
{
  const int size = sent == Sent::OWNER ? 2 : sender->doubles();
  for (int i = first; i < first + n; i++, buf += size) {
    if (sent == Sent::OWNER) {
      owner[2 * i] = static_cast<int>(buf[0]);
      owner[2 * i + 1] = static_cast<int>(buf[1]);
    } else if (slot[i] >= atom->nlocal)
      sender->unpack(field, layer, slot[i], buf);
  }
}

int PairSchNet::pack_reverse_comm(int n, int first, double *buf)
{
  const int members = model.groups.back().members;
  const size_t all = atom->nlocal + atom->nghost;
  for (int i = first; i < first + n; i++)
    for (int m = 0; m < members; m++)
      for (int a = 0; a < 3; a++) *buf++ = member_forces[3 * (m * all + i) + a];
  return 3 * members * n;
}

void PairSchNet::unpack_reverse_comm(int n, int *atoms, double *buf)
{
  const int members = model.groups.back().members;
  const size_t all = atom->nlocal + atom->nghost;
  for (int k = 0; k < n; k++)
    for (int m = 0; m < members; m++)
      for (int a = 0; a < 3; a++) member_forces[3 * (m * all + atoms[k]) + a] += *buf++;
}

/* ----------------------------------------------------------------------
   what others read
------------------------------------------------------------------------- */

void *PairSchNet::extract(const char *name, int &dim)
{
  dim = 0;
  if (strcmp(name, "deviation_flag") != 0 && strcmp(name, "forces_uncertainty_flag") != 0) return nullptr;
  triggered = true;
  return &deviation_flag;
}

void *PairSchNet::extract_peratom(const char *name, int &columns)
{
  columns = 0;
  const bool is_deviation = strcmp(name, "deviation") == 0;
  if (model.groups.empty() || model.groups.back().members < 2) return nullptr;
  if (!is_deviation && (strcmp(name, "forces_uncertainty") != 0 || model.calibration.coverage == 0.0)) return nullptr;
  per_atom_asked = true;
  auto &values = is_deviation ? deviation : half_width;
  if (values.size() < static_cast<size_t>(atom->nmax)) values.resize(atom->nmax, 0.0);
  return values.data();
}

double PairSchNet::memory_usage()
{
  double bytes = Pair::memory_usage();
  for (auto &kernel : kernels) bytes += kernel->bytes();
  bytes += sizeof(int) * (system.second.capacity() + system.slot.capacity() + system.start.capacity() + slot.capacity() + owner.capacity());
  return bytes + sizeof(double) * (member_forces.capacity() + deviation.capacity() + half_width.capacity());
}
