/* ----------------------------------------------------------------------
   Part of schnet_ase (MIT licence), for LAMMPS. See schnet_model.h.
------------------------------------------------------------------------- */

#include "schnet_model.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <sstream>

using namespace SchNet;

namespace {

constexpr int FORMAT = 1;    // schnet_ase/export/lammps/model_file.py writes the same
const char MAGIC[] = "schnet_ase-lammps";

class Reader {
 public:
  Reader(const std::string &file, const std::vector<char> &bytes) : file(file), bytes(bytes) {}

  [[noreturn]] void fail(const std::string &what,
                         const std::string &remedy = "write it again with: schnet-ase lammps export") const
  {
    throw ModelError("pair style schnet: " + file + ": " + what + "; " + remedy);
  }

  std::string line()
  {
    auto *start = bytes.data() + at;
    auto *end = static_cast<const char *>(memchr(start, '\n', bytes.size() - at));
    if (!end) fail("truncated, its header does not end");
    at += end - start + 1;
    return std::string(start, end);
  }

  std::vector<double> numbers(size_t count, bool single)
  {
    const size_t size = single ? 4 : 8;
    if (count > (bytes.size() - at) / size) fail("truncated, numbers are missing");
    std::vector<double> values(count);
    for (size_t i = 0; i < count; i++, at += size) {
      if (single) {
        float value;
        memcpy(&value, bytes.data() + at, size);
        values[i] = value;
      } else
        memcpy(&values[i], bytes.data() + at, size);
      if (!std::isfinite(values[i])) fail("a number is not finite");
    }
    return values;
  }

  uint32_t crc() const
  {
    uint32_t table[256];
    for (uint32_t n = 0; n < 256; n++) {
      uint32_t c = n;
      for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      table[n] = c;
    }
    uint32_t c = 0xFFFFFFFFu;
    for (size_t i = at; i < bytes.size(); i++) c = table[(c ^ static_cast<unsigned char>(bytes[i])) & 0xFF] ^ (c >> 8);
    return c ^ 0xFFFFFFFFu;
  }

  size_t left() const { return bytes.size() - at; }

 private:
  const std::string &file;
  const std::vector<char> &bytes;
  size_t at = 0;
};

/* The words of a line as values of the keys before them. */

class Values {
 public:
  Values(const Reader &reader, std::istringstream &line) : reader(reader)
  {
    std::string key, value;
    while (line >> key) {
      if (!(line >> value)) reader.fail("its header gives no value of " + key);
      values[key] = value;
    }
  }

  std::string text(const std::string &key) const
  {
    auto found = values.find(key);
    if (found == values.end()) reader.fail("its header lacks " + key);
    return found->second;
  }

  double number(const std::string &key) const
  {
    const std::string value = text(key);
    char *end;
    const double result = strtod(value.c_str(), &end);
    if (*end || !std::isfinite(result) || result < 0.0) reader.fail(key + " is " + value + ", expected a number");
    return result;
  }

  int count(const std::string &key) const
  {
    const double value = number(key);
    if (value < 1.0 || value > 1e6 || value != std::floor(value)) reader.fail(key + " is " + text(key) + ", expected a count");
    return static_cast<int>(value);
  }

  bool is_silu(const std::string &key) const
  {
    const std::string value = text(key);
    if (value != "ssp" && value != "silu") reader.fail(key + " is " + value + ", expected ssp or silu");
    return value == "silu";
  }

  bool repels(const std::string &key) const
  {
    const std::string value = text(key);
    if (value != "none" && value != "zbl") reader.fail(key + " is " + value + ", expected none or zbl");
    return value == "zbl";
  }

 private:
  const Reader &reader;
  std::map<std::string, std::string> values;
};

Group group(const Values &values)
{
  Group group;
  group.members = values.count("members");
  group.layers = values.count("layers");
  group.features = values.count("features");
  group.hidden = values.count("hidden");
  group.rows = values.count("rows");
  group.width = values.number("width");
  group.cutoff = values.number("cutoff");
  group.silu = values.is_silu("activation");
  group.readout_silu = values.is_silu("readout_activation");
  group.repels = values.repels("prior");
  return group;
}

std::vector<double> rest(std::istringstream &line)
{
  std::vector<double> values;
  for (double value; line >> value;) values.push_back(value);
  return values;
}

Network network(Reader &reader, const Group &g, size_t elements, bool single)
{
  const size_t F = g.features, L = g.layers, H = g.hidden, R = g.rows;
  Network n;
  n.embedding = reader.numbers(elements * F, single);
  n.embedding_in = reader.numbers(elements * F, single);
  n.table = reader.numbers(L * R * 6 * F, single);
  n.dense = reader.numbers(L * 3 * F * F, single);
  n.bias = reader.numbers(L * 3 * F, single);
  n.readout = reader.numbers(H * F, single);
  n.readout_bias = reader.numbers(H, single);
  n.output = reader.numbers(H, single);
  n.output_bias = reader.numbers(1, false);
  n.scale = reader.numbers(1, false);
  n.reference = reader.numbers(elements, false);
  return n;
}

}    // namespace

Model SchNet::read_model(const std::string &file, const std::vector<char> &bytes)
{
  const uint16_t one = 1;
  char first;
  memcpy(&first, &one, 1);
  Reader reader(file, bytes);
  if (first != 1) reader.fail("this machine is not little-endian, which is not covered");
  if (bytes.size() < sizeof(MAGIC) || memcmp(bytes.data(), MAGIC, sizeof(MAGIC) - 1) != 0)
    reader.fail("not a model for pair style schnet");

  Model model;
  std::string crc, key;
  size_t size = 0;
  for (std::string text = reader.line(); !text.empty(); text = reader.line()) {
    std::istringstream line(text);
    line >> key;
    if (key == MAGIC) {
      int format = 0;
      line >> format;
      if (format > FORMAT)
        reader.fail("format " + std::to_string(format) + " is newer than this pair style's, " + std::to_string(FORMAT),
                    "build the pair style again with the schnet_ase that wrote the file: schnet-ase lammps build");
      if (format != FORMAT) reader.fail("its format is not known");
    } else if (key == "name") {
      line >> model.name;
    } else if (key == "dtype") {
      line >> model.dtype;
    } else if (key == "elements") {
      for (std::string symbol; line >> symbol;) model.elements.push_back(symbol);
    } else if (key == "group") {
      model.groups.push_back(group(Values(reader, line)));
    } else if (key == "threshold") {
      line >> model.threshold;
    } else if (key == "calibration") {
      Values values(reader, line);
      model.calibration.coverage = values.number("coverage");
      model.calibration.prior_spread = values.number("prior_spread");
      model.calibration.prior_weight = values.number("prior_weight");
      model.calibration.quantile = values.number("quantile");
    } else if (key == "factors") {
      model.calibration.factors = rest(line);
    } else if (key == "coulomb") {
      line >> model.repulsion.coulomb;
    } else if (key == "charges") {
      model.repulsion.charge = rest(line);
    } else if (key == "reaches") {
      model.repulsion.reach = rest(line);
    } else if (key == "screenings") {
      model.repulsion.screening = rest(line);
    } else if (key == "bytes") {
      line >> size;
    } else if (key == "crc32") {
      line >> crc;
    } else if (key[0] != '#')
      reader.fail("its header has the unknown key " + key);
  }
  if (model.dtype != "float32" && model.dtype != "float64") reader.fail("dtype is " + model.dtype);
  if (model.elements.empty() || model.groups.empty() || model.groups.size() > 2) reader.fail("its header is incomplete");
  if (model.calibration.coverage > 0.0 && model.calibration.factors.size() != model.elements.size())
    reader.fail("its calibration has no factor for each element");
  const auto &r = model.repulsion;
  for (auto &g : model.groups)
    if (g.repels && (r.coulomb <= 0.0 || r.charge.size() != model.elements.size() ||
                     r.reach.size() != model.elements.size() || r.screening.size() != model.elements.size()))
      reader.fail("its repulsion is not given for each element");
  if (reader.left() != size) reader.fail("truncated or with more at its end");
  char found[9];
  snprintf(found, sizeof found, "%08x", static_cast<unsigned>(reader.crc()));
  if (crc != found) reader.fail("damaged, its checksum does not fit");
  for (auto &g : model.groups)
    for (int m = 0; m < g.members; m++)
      g.networks.push_back(network(reader, g, model.elements.size(), model.dtype == "float32"));
  if (reader.left()) reader.fail("it has more numbers than its header says");
  return model;
}
