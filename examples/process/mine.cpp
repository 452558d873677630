// A program in another language under verification: one file, the standard library and nothing else.
//   g++ -std=c++17 -O1 -o mine examples/process/mine.cpp && minidit verify --exec ./mine
// One JSON object per line in and out (docs/protocol.md). `./mine --wrong` takes the wrong rung below, which the kit names M02.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

// ------------------------------------------------------------------ JSON: a value, a reader, a writer of numbers
struct Json {
  enum Kind { null, boolean, number, text, list, object } kind = null;
  double num = 0;
  std::string str;
  std::vector<Json> items;
  std::map<std::string, Json> fields;
  const Json& at(const std::string& key) const {
    auto found = fields.find(key);
    if (found == fields.end()) throw std::runtime_error("no \"" + key + "\" in the question");
    return found->second;
  }
};

struct Reader {
  const char* p;
  void skip() { while (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r') ++p; }
  char next() { skip(); return *p; }
  void need(char c) { if (next() != c) throw std::runtime_error(std::string("JSON: expected ") + c); ++p; }
  std::string quoted() {
    std::string out;
    need('"');
    for (; *p != '"'; ++p) {
      if (!*p) throw std::runtime_error("JSON: a text without end");
      if (*p != '\\') { out += *p; continue; }
      switch (*++p) {
        case 'n': out += '\n'; break;
        case 't': out += '\t'; break;
        case 'u': out += '?'; p += 4; break;  // names of topics are plain letters
        default: out += *p;
      }
    }
    ++p;
    return out;
  }
  Json value() {
    Json v;
    char c = next();
    if (c == '{') {
      v.kind = Json::object;
      for (need('{'); next() != '}';) {
        std::string key = quoted();
        need(':');
        v.fields[key] = value();
        if (next() == ',') ++p;
      }
      ++p;
    } else if (c == '[') {
      v.kind = Json::list;
      for (need('['); next() != ']';) {
        v.items.push_back(value());
        if (next() == ',') ++p;
      }
      ++p;
    } else if (c == '"') {
      v.kind = Json::text;
      v.str = quoted();
    } else if (!std::strncmp(p, "true", 4) || !std::strncmp(p, "null", 4)) {
      v.kind = *p == 't' ? Json::boolean : Json::null;
      v.num = *p == 't';
      p += 4;
    } else if (!std::strncmp(p, "false", 5)) {
      v.kind = Json::boolean;
      p += 5;
    } else {
      char* end;
      v.kind = Json::number;
      v.num = std::strtod(p, &end);
      if (end == p) throw std::runtime_error("JSON: not a value");
      p = end;
    }
    return v;
  }
};

std::string written(double x) {
  if (std::isnan(x)) return "\"NaN\"";
  if (std::isinf(x)) return x > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", x);
  return text;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

// ------------------------------------------------------------------ arrays: in the line, or in a safetensors file
struct Array {
  std::vector<size_t> shape;
  std::vector<double> data;
};

template <class T> std::vector<double> numbers(std::istream& in, size_t bytes) {
  std::vector<T> raw(bytes / sizeof(T));
  in.read(reinterpret_cast<char*>(raw.data()), bytes);
  return {raw.begin(), raw.end()};
}

std::vector<double> from_file(const std::string& path, const std::string& name) {  // 8 bytes length, a JSON header, the data
  std::ifstream in(path, std::ios::binary);
  uint64_t length = 0;
  in.read(reinterpret_cast<char*>(&length), 8);
  std::string header(length, ' ');
  in.read(&header[0], length);
  Json entry = Reader{header.c_str()}.value().at(name);
  size_t from = entry.at("data_offsets").items[0].num, to = entry.at("data_offsets").items[1].num;
  in.seekg(8 + length + from);
  std::string type = entry.at("dtype").str;
  if (type == "F64") return numbers<double>(in, to - from);
  if (type == "F32") return numbers<float>(in, to - from);
  if (type == "I64") return numbers<int64_t>(in, to - from);
  throw std::runtime_error("cannot read " + type);
}

double number_of(const Json& v) {
  return v.kind != Json::text ? v.num : v.str == "NaN" ? NAN : v.str == "Infinity" ? INFINITY : -INFINITY;
}

Array array_of(const Json& v) {
  Array a;
  for (const Json& n : v.at("shape").items) a.shape.push_back(n.num);
  if (v.fields.count("file")) a.data = from_file(v.at("file").str, v.at("name").str);
  else for (const Json& x : v.at("data").items) a.data.push_back(number_of(x));
  return a;
}

std::string written(const Array& a) {
  std::string out = "{\"dtype\": \"float64\", \"shape\": [", data;
  for (size_t i = 0; i < a.shape.size(); ++i) out += (i ? ", " : "") + std::to_string(a.shape[i]);
  for (size_t i = 0; i < a.data.size(); ++i) data += (i ? ", " : "") + written(a.data[i]);
  return out + "], \"data\": [" + data + "]}";
}

// ------------------------------------------------------------------ what this program can do: one function per topic
bool wrong = false;
using Args = const std::vector<Json>&;

std::string ddim_step(Args in) {  // x_t, eps, t, s, alpha_bar, eta, z
  Array x = array_of(in.at(0)), eps = array_of(in.at(1)), table = array_of(in.at(4)), z = array_of(in.at(6));
  int t = in.at(2).num, s = in.at(3).num, below = wrong && t > 0 ? t - 1 : s;
  double a_t = table.data.at(t), a_s = below < 0 ? 1 : table.data.at(below);
  double sigma = in.at(5).num * std::sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s));
  double ahead = std::sqrt(std::max(0.0, 1 - a_s - sigma * sigma));
  for (size_t i = 0; i < x.data.size(); ++i) {
    double x_0 = (x.data[i] - std::sqrt(1 - a_t) * eps.data[i]) / std::sqrt(a_t);
    x.data[i] = std::sqrt(a_s) * x_0 + ahead * eps.data[i] + (s < 0 ? 0 : sigma * z.data[i]);
  }
  return written(x);
}

std::string q_sample(Args in) {  // x_0, eps, t (B,), alpha_bar
  Array x = array_of(in.at(0)), eps = array_of(in.at(1)), t = array_of(in.at(2)), table = array_of(in.at(3));
  size_t each = x.data.size() / t.data.size();  // entries of one picture
  for (size_t i = 0; i < x.data.size(); ++i) {
    double a = table.data.at(size_t(t.data[i / each]));
    x.data[i] = std::sqrt(a) * x.data[i] + std::sqrt(1 - a) * eps.data[i];
  }
  return written(x);
}

std::string cosine_betas(Args in) {  // T
  size_t T = in.at(0).num;
  const double pi = std::acos(-1.0);
  auto f = [&](size_t i) { return std::pow(std::cos((double(i) / T + 0.008) / 1.008 * pi / 2), 2); };
  Array out{{T}, {}};
  for (size_t i = 0; i < T; ++i) out.data.push_back(std::min(1 - f(i + 1) / f(i), 0.999));
  return written(out);
}

std::string layer_norm(Args in) {  // x (..., D)
  Array x = array_of(in.at(0));
  size_t D = x.shape.back();
  for (size_t row = 0; row < x.data.size(); row += D) {
    double mean = 0, square = 0;
    for (size_t i = 0; i < D; ++i) mean += x.data[row + i] / D;
    for (size_t i = 0; i < D; ++i) square += std::pow(x.data[row + i] - mean, 2) / D;
    for (size_t i = 0; i < D; ++i) x.data[row + i] = (x.data[row + i] - mean) / std::sqrt(square + 1e-6);
  }
  return written(x);
}

std::map<std::string, std::function<std::string(Args)>> topics = {
    {"ddim_step", ddim_step}, {"q_sample", q_sample}, {"cosine_betas", cosine_betas}, {"layer_norm", layer_norm}};

int main(int argc, char** argv) {
  wrong = argc > 1 && std::string(argv[1]) == "--wrong";
  std::string line;
  std::getline(std::cin, line);  // the kit's greeting
  std::string names;
  for (auto& [name, f] : topics) names += (names.empty() ? "" : ", ") + quoted(name);
  std::cout << "{\"protocol\": 1, \"name\": \"mine.cpp" << (wrong ? " --wrong" : "") << "\", \"topics\": [" << names << "]}" << std::endl;
  while (std::getline(std::cin, line)) {
    Json asked = Reader{line.c_str()}.value();
    std::string answer;
    try {
      answer = "\"answer\": " + topics.at(asked.at("topic").str)(asked.at("args").items);
    } catch (const std::exception& error) {
      answer = "\"error\": " + quoted(error.what());
    }
    std::cout << "{\"id\": " << written(asked.at("id").num) << ", " << answer << "}" << std::endl;
  }
}
