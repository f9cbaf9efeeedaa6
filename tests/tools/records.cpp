// Reads a file of records for tests/datasets/test_records_oracle.py. usage: tool_records FILE
// Prints JSON: {"columns": […], "records": [{column: value}]}; columns that a record lacks are left out.
#include "datasets/records.h"

#include <iostream>

#include "recipes/error.h"

int main(int, char** argv) {
  try {
    const auto records = tessera::Records::open(argv[1]);
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (int64_t i = 0; i < records.size(); ++i) {
      nlohmann::ordered_json values = nlohmann::ordered_json::object();
      for (const std::string& column : records.columns()) {
        try {
          values[column] = records.json(i, column);
        } catch (const tessera::Error&) {
          continue;
        }
      }
      list.push_back(values);
    }
    std::cout << nlohmann::ordered_json{{"columns", records.columns()}, {"records", list}}.dump() << '\n';
  } catch (const tessera::Error& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
