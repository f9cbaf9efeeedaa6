#pragma once
#include <string>

#include "launch/suggest.h"
#include "trainer/progress.h"

namespace tessera {

/// A line of validate's output: a title and what belongs to it.
void print_line(const std::string& title, const std::string& text);

void print_plan(const ModelFacts& facts, const Forecast& plan, const MachineFigures& machine, int64_t steps);
/// The plan in a few rows, for a run that starts.
void add_plan_rows(const Forecast& plan, Table& table);
/// `limit`: where the bound on memory comes from.
void print_suggestions(const Suggestions& suggestions, const Layout& base, const std::string& limit);
/// The same figures for programs: memory in bytes, messages and bytes per axis (of the busiest stage, and of
/// each), seconds.
std::string plan_json(const ModelFacts& facts, const Forecast& plan);

}  // namespace tessera
