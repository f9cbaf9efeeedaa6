#include "parallel/world.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "parallel/mpi_worker.h"
#include "parallel/neighbours.h"
#include "parallel/plugin.h"
#include "parallel/threads.h"
#include "recipes/error.h"

namespace tessera {
namespace {
// What abort_job needs to know, wherever it is called from. MPI itself is one a process.
struct Job {
  std::atomic<int> rank{0};
  std::atomic<int> size{1};
  std::atomic<int64_t> step{0};
  std::atomic<MpiWorker*> worker{nullptr};
};
Job& job() {
  static Job instance;
  return instance;
}

std::chrono::milliseconds time_limit() {
  const char* text = std::getenv("TESSERA_TIMEOUT_SECONDS");
  if (text == nullptr) return std::chrono::minutes(10);
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != 0 || !(seconds > 0 && seconds < 1e8)) {
    throw Error(fmt::format("TESSERA_TIMEOUT_SECONDS='{}': valid: seconds above 0, such as 600", text));
  }
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

// Says what was thrown, and ends the job.
[[noreturn]] void abort_job_by(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    abort_job(error.what(), 2);
  } catch (const c10::Error& error) {
    abort_job(error.what_without_backtrace(), 1);
  } catch (const std::exception& error) {
    abort_job(error.what(), 1);
  } catch (...) {
    abort_job("an exception of no known type", 1);
  }
}

void on_terminate() {
  if (const auto thrown = std::current_exception()) abort_job_by(thrown);
  abort_job("std::terminate was called", 1);
}

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}
}  // namespace

World::World() : info_(launch_info()) {
  const auto limit = time_limit();
  job().rank = info_.rank;
  job().size = info_.size;
  job().step = 0;
  if (info_.size == 1) return;
  worker_ = std::make_shared<MpiWorker>(limit, info_.rank, info_.size);
  communicator_ = Communicator(make_mpi_transport(worker_, info_.rank, info_.size));
  job().worker = worker_.get();
}

World::~World() {
  if (!worker_) return;
  if (unwinding_) {
    job().worker = nullptr;
    worker_->abandon();
    new std::shared_ptr<MpiWorker>(worker_);  // its thread lives on until the process ends
    return;
  }
  if (!worker_->finish())
    abort_job("the other ranks did not come to the job's end (limit: TESSERA_TIMEOUT_SECONDS)", 1);
  job().worker = nullptr;
}

Communicator World::gpu_communicator(int device) const {
  const GpuPlugin& plugin = gpu_plugin();
  plugin.set_device(device);
  if (size() == 1) return {};
  return Communicator(
      plugin.make_transport({rank(), size(), device, time_limit(), [this](void* bytes, size_t size) {
                               const auto count = static_cast<int64_t>(size);
                               communicator_.broadcast(at::from_blob(bytes, {count}, at::kByte), 0);
                             }}));
}

int World::set_threads() {
  std::vector<std::string> masks;
  const auto placement = communicator_.gather_text(host_name() + "\n" + affinity_text());
  const std::string host = host_name() + "\n";
  int me = 0;
  for (int i = 0; i < size(); ++i) {
    if (placement[i].compare(0, host.size(), host) != 0) continue;
    if (i == rank()) me = static_cast<int>(masks.size());
    masks.push_back(placement[i].substr(host.size()));
  }
  if (!std::getenv("OMP_NUM_THREADS")) at::set_num_threads(threads_for(masks, me));
  return at::get_num_threads();
}

void World::set_step(int64_t step) { job().step = step; }

// The World must outlive the handlers of what the body throws: they end the other ranks through it.
int run_job(const std::function<int(World&)>& body) {
  const auto guarded = [](const std::function<int()>& inner) {
    try {
      return inner();
    } catch (...) {
      abort_job_by(std::current_exception());
    }
  };
  std::set_terminate(on_terminate);
  return guarded([&] {
    World world;
    return guarded([&] { return body(world); });
  });
}

void abort_job(const std::string& message, int code) {
  static std::atomic<bool> aborting{false};
  // A second thread that fails meanwhile has nothing to add.
  if (aborting.exchange(true)) std::this_thread::sleep_for(std::chrono::seconds(5)), _exit(code);
  std::fflush(stdout);
  if (job().size > 1) Neighbours::announce_end();
  using namespace std::chrono_literals;
  const std::chrono::milliseconds a_moment = 300ms;
  if (job().rank != 0) std::this_thread::sleep_for(code == 2 ? 2000ms : a_moment);
  std::string line = "tessera: " + message + "\n";
  if (job().size > 1) {
    line = fmt::format("tessera: rank {} ({}, step {}): {}\n", job().rank.load(), host_name(),
                       job().step.load(), message);
  }
  std::fputs(line.c_str(), stderr);
  std::fflush(stderr);
  if (MpiWorker* worker = job().worker) {
    if (job().rank == 0) std::this_thread::sleep_for(a_moment);  // the announcement is seen
    worker->abort(code);
  }
  _exit(code);  // where MPI is not up, mpirun and srun end the others on a code other than 0
}

}  // namespace tessera
