#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/launch_info.h"
#include "parallel/mesh.h"
#include "parallel/plugin.h"
#include "parallel/threads.h"
#include "parallel/world.h"
#include "recipes/error.h"

namespace tessera {
namespace {
using testing::HasSubstr;
using testing::ThrowsMessage;

class Launch : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK",
                             "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS",
                             "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE",
                             "PMIX_RANK", "PMI_SIZE", "TESSERA_TIMEOUT_SECONDS"}) {
      unsetenv(name);
    }
  }
  void TearDown() override { SetUp(); }
  static void set(std::initializer_list<std::pair<const char*, const char*>> variables) {
    for (const auto& [name, value] : variables) setenv(name, value, 1);
  }
};

TEST_F(Launch, by_nobody) {
  const LaunchInfo info = launch_info();
  EXPECT_EQ(info.size, 1);
  EXPECT_EQ(info.launcher, "");
}

TEST_F(Launch, by_mpirun) {
  set({{"OMPI_COMM_WORLD_SIZE", "8"},
       {"OMPI_COMM_WORLD_RANK", "5"},
       {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
       {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
       {"SLURM_NTASKS", "2"},
       {"SLURM_PROCID", "0"}});
  const LaunchInfo info = launch_info();
  EXPECT_EQ(info.launcher, "mpirun");
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.size, 8);
  EXPECT_EQ(info.local_rank, 1);
  EXPECT_EQ(info.local_size, 4);
}

TEST_F(Launch, by_srun_with_pmix) {
  set({{"SLURM_STEP_NUM_TASKS", "7"},
       {"SLURM_PROCID", "5"},
       {"SLURM_LOCALID", "1"},
       {"SLURM_NODEID", "2"},
       {"SLURM_STEP_TASKS_PER_NODE", "2(x2),3"},
       {"PMIX_RANK", "5"}});
  const LaunchInfo info = launch_info();
  EXPECT_EQ(info.launcher, "srun");
  EXPECT_EQ(info.rank, 5);
  EXPECT_EQ(info.size, 7);
  EXPECT_EQ(info.local_size, 3);
}

TEST_F(Launch, by_srun_without_pmix_says_what_to_do) {
  set({{"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "2"}});
  EXPECT_THAT([] { launch_info(); }, ThrowsMessage<Error>(HasSubstr("srun --mpi=pmix")));
  EXPECT_THAT([] { World world; }, ThrowsMessage<Error>(HasSubstr("4 tasks")));
}

TEST_F(Launch, by_another_mpi) {
  set({{"PMI_SIZE", "2"}});
  EXPECT_THAT([] { launch_info(); }, ThrowsMessage<Error>(HasSubstr("Open MPI")));
}

TEST_F(Launch, contradictions_and_nonsense_are_refused) {
  set({{"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "2"}});
  EXPECT_THAT([] { launch_info(); }, ThrowsMessage<Error>(HasSubstr("rank 2 of 2")));
  set({{"OMPI_COMM_WORLD_SIZE", "two"}});
  EXPECT_THAT([] { launch_info(); }, ThrowsMessage<Error>(HasSubstr("'two'")));
}

TEST_F(Launch, tasks_per_node) {
  EXPECT_EQ(tasks_of_node("4", 0), 4);
  EXPECT_EQ(tasks_of_node("2(x3),1", 2), 2);
  EXPECT_EQ(tasks_of_node("2(x3),1", 3), 1);
  EXPECT_THROW(tasks_of_node("2(x3),1", 4), Error);
  EXPECT_THROW(tasks_of_node("", 0), Error);
}

TEST_F(Launch, a_process_alone_is_a_world_of_one_without_mpi) {
  World world;
  EXPECT_EQ(world.size(), 1);
  EXPECT_EQ(world.communicator().size(), 1);
  EXPECT_EQ(world.communicator().gather_text("alone"), std::vector<std::string>{"alone"});
  const at::Tensor tensor = at::ones({3});
  world.communicator().all_reduce(tensor);
  EXPECT_TRUE(at::equal(tensor, at::ones({3})));
}

TEST_F(Launch, a_time_limit_that_is_none_is_refused) {
  set({{"TESSERA_TIMEOUT_SECONDS", "soon"}});
  EXPECT_THAT([] { World world; }, ThrowsMessage<Error>(HasSubstr("TESSERA_TIMEOUT_SECONDS='soon'")));
}

TEST_F(Launch, a_job_ends_with_its_exit_code) {
  EXPECT_EQ(run_job([](World&) { return 3; }), 3);
  const auto mistake = [](World&) -> int { throw Error("no such recipe"); };
  EXPECT_EXIT(run_job(mistake), testing::ExitedWithCode(2), "^tessera: no such recipe\n$");
  const auto bug = [](World&) -> int { throw std::runtime_error("broken"); };
  EXPECT_EXIT(run_job(bug), testing::ExitedWithCode(1), "broken");
}

TEST(Threads, processors_are_divided_among_the_ranks_that_share_them) {
  EXPECT_EQ(threads_for({"0,1,2,3"}, 0),
            processor_limit() > 0 ? std::min(4, std::max(1, (int)processor_limit())) : 4);
  EXPECT_EQ(threads_for({"0,1", "2,3"}, 1), 2);
  EXPECT_EQ(threads_for({"0,1", "0,1"}, 0), 1);
  EXPECT_EQ(threads_for({"0", "0", "0"}, 2), 1);
}

TEST(GpuPlugin, its_absence_is_explained) {
  if (find_gpu_plugin()) GTEST_SKIP() << "there is a GPU";
  EXPECT_THAT([] { gpu_plugin(); }, ThrowsMessage<Error>(HasSubstr("no GPU can be used: ")));
}

TEST(MeshAlone, describes_itself) {
  EXPECT_EQ(Mesh().describe(), "1 rank = pipeline 1 x replicate 1 x shard 1 x context 1 x tensor 1");
}
}  // namespace
}  // namespace tessera
