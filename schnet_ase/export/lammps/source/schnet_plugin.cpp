/* ----------------------------------------------------------------------
   Part of schnet_ase (MIT licence), for LAMMPS: pair style schnet as a plugin.

   lammpsplugin.h is not among the headers that LAMMPS installs; its struct is
   declared here as LAMMPS documents it (Developer's guide, "Writing plugins").
------------------------------------------------------------------------- */

#include "pair_schnet.h"

using namespace LAMMPS_NS;

typedef void *(lammpsplugin_factory1) (LAMMPS *);

struct lammpsplugin_t {
  const char *version, *style, *name, *info, *author;
  union {
    lammpsplugin_factory1 *v1;
    void *v2;
  } creator;
  void *handle;
};

typedef void (*lammpsplugin_regfunc)(lammpsplugin_t *, void *);

static void *new_pair(LAMMPS *lmp)
{
  return new PairSchNet(lmp);
}

extern "C" void lammpsplugin_init(void *lmp, void *handle, void *register_plugin)
{
  lammpsplugin_t plugin = {SCHNET_LAMMPS_VERSION, "pair", "schnet", "SchNet by schnet_ase", "The schnet_ase developers", {&new_pair}, handle};
  (*reinterpret_cast<lammpsplugin_regfunc>(register_plugin))(&plugin, lmp);
}
