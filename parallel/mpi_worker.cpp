#include "parallel/mpi_worker.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <omp.h>
#include <sys/prctl.h>

#include <cstring>

#include "parallel/check.h"
#include "recipes/error.h"

namespace tessera {
namespace {
using std::chrono::microseconds;

// Between processes of a host, Open MPI would have the kernel copy from one to the other. That is forbidden
// in many containers, and where it is not, an all-reduce of 16 MiB took 5.9 ms so and 1.6 ms through shared
// memory.
void choose_copy_mechanism() { setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 0); }

std::string host_of_mpi() {
  char name[MPI_MAX_PROCESSOR_NAME] = "";
  int length = 0;
  check_mpi(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name");
  return name;
}

/// Every rank's text of up to `longest` characters.
std::vector<std::string> gather_texts(std::string mine, int longest, int size) {
  mine.resize(static_cast<size_t>(longest));
  std::vector<char> all(static_cast<size_t>(size) * mine.size());
  check_mpi(MPI_Allgather(mine.data(), longest, MPI_CHAR, all.data(), longest, MPI_CHAR, MPI_COMM_WORLD),
            "MPI_Allgather");
  std::vector<std::string> texts;
  for (int i = 0; i < size; ++i) {
    const char* text = all.data() + static_cast<size_t>(i) * mine.size();
    texts.emplace_back(text, strnlen(text, mine.size()));
  }
  return texts;
}

// ATen would start a second team of threads for this thread's additions.
void compute_alone() {
  at::get_num_threads();  // sets this thread up, which would otherwise undo the next line
  omp_set_num_threads(1);
}
}  // namespace

MpiWorker::MpiWorker(std::chrono::milliseconds time_limit, int rank, int size)
    : expected_rank_(rank), expected_size_(size) {
  context_.time_limit = time_limit;
  thread_ = std::thread([this] { run(); });
}

MpiWorker::~MpiWorker() {
  finish();  // at once where World has called it
  if (thread_.joinable()) thread_.join();
}

void MpiWorker::run() {
  std::exception_ptr error;
  try {
    start_mpi();
  } catch (...) {
    error = std::current_exception();
  }
  std::unique_lock lock(mutex_);
  start_error_ = error;
  if (state_ == State::starting) state_ = State::running;
  changed_.notify_all();
  while (take_new(lock)) {
    lock.unlock();
    if (abort_code_ >= 0) MPI_Abort(MPI_COMM_WORLD, abort_code_);
    if (error) fail_all(error);
    rest(advance_all());
    lock.lock();
  }
  const bool finalise = state_ == State::finishing && !error;
  lock.unlock();
  if (finalise) MPI_Finalize();
  lock.lock();
  state_ = State::ended;
  changed_.notify_all();
}

void MpiWorker::start_mpi() {
  prctl(PR_SET_NAME, "tessera-mpi");
  prctl(PR_SET_TIMERSLACK, 1000UL);  // short sleeps end on time
  compute_alone();
  choose_copy_mechanism();
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &context_.rank), "MPI_Comm_rank");
  check_world();
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &context_.collectives), "MPI_Comm_dup");
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &context_.point_to_point), "MPI_Comm_dup");
  context_.hosts = gather_texts(host_of_mpi(), MPI_MAX_PROCESSOR_NAME, expected_size_);
  context_.neighbours =
      Neighbours(gather_texts(Neighbours::card(), Neighbours::longest_card, expected_size_));
}

void MpiWorker::check_world() const {
  int size = 0;
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  if (size == expected_size_ && context_.rank == expected_rank_) return;
  throw Error(
      fmt::format("the launcher says rank {} of {}, MPI says rank {} of {}: start with the mpirun of the "
                  "Open MPI that this "
                  "program is built with, or with 'srun --mpi=pmix …'",
                  expected_rank_, expected_size_, context_.rank, size));
}

// False when there is nothing left to do and the thread shall end.
bool MpiWorker::take_new(std::unique_lock<std::mutex>& lock) {
  const auto wake = [this] { return !submitted_.empty() || state_ != State::running || abort_code_ >= 0; };
  if (active_.empty()) changed_.wait(lock, wake);
  if (state_ == State::abandoned) return abort_code_ >= 0;
  active_.insert(active_.end(), submitted_.begin(), submitted_.end());
  submitted_.clear();
  return !active_.empty() || abort_code_ >= 0 || state_ == State::running;
}

bool MpiWorker::advance_all() {
  const c10::InferenceMode no_autograd;
  bool moved = false;
  for (const auto& task : active_) {
    try {
      moved |= task->advance(context_);
    } catch (...) {
      failed_.push_back(task);
      task->finish(std::current_exception());
    }
  }
  std::erase_if(active_, [](const auto& task) { return task->done(); });
  return moved;
}

void MpiWorker::fail_all(const std::exception_ptr& error) {
  for (const auto& task : active_) task->finish(error);
  active_.clear();
}

// Polls eagerly for a moment, since answers often come at once, then less and less often.
void MpiWorker::rest(bool moved) {
  idle_polls_ = moved ? 0 : idle_polls_ + 1;
  constexpr int eager = 20;
  if (active_.empty() || idle_polls_ < eager) {
    if (idle_polls_ == 0) return;
    const auto before = std::chrono::steady_clock::now();
    sched_yield();
    // Others want this processor: who sleeps is woken sooner than who waits in line.
    if (std::chrono::steady_clock::now() - before > microseconds(200)) idle_polls_ = eager;
    return;
  }
  const int longest = num_waiting_ > 0 ? 100 : 250;
  const microseconds pause(std::min(longest, 5 + (idle_polls_ - eager) / 2));
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, pause, [this] { return !submitted_.empty() || abort_code_ >= 0; });
}

const MpiContext& MpiWorker::wait_until_ready() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::starting; });
  if (start_error_) std::rethrow_exception(start_error_);
  return context_;
}

void MpiWorker::submit(std::shared_ptr<MpiTask> task) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::starting && state_ != State::running) {
      throw std::logic_error("an operation between ranks after the end of the world");
    }
    submitted_.push_back(std::move(task));
  }
  changed_.notify_all();
}

bool MpiWorker::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return state_ != State::starting; });
  if (state_ == State::running) state_ = State::finishing;
  changed_.notify_all();
  // Twice the limit: what is under way may use it up first.
  return changed_.wait_for(lock, 2 * context_.time_limit,
                           [this] { return state_ == State::ended || state_ == State::abandoned; });
}

void MpiWorker::abandon() {
  const std::lock_guard lock(mutex_);
  if (state_ != State::ended) state_ = State::abandoned;
  changed_.notify_all();
  if (thread_.joinable()) thread_.detach();
}

void MpiWorker::abort(int code) {
  std::unique_lock lock(mutex_);
  if (state_ == State::ended) return;
  abort_code_ = code;
  changed_.notify_all();
  changed_.wait_for(lock, std::chrono::seconds(3), [] { return false; });
}

}  // namespace tessera
