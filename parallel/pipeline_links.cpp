#include "parallel/pipeline_links.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace tessera {
namespace {
// Splits of the axis in which each stage has at most one of its two links: two, or three in a ring of odd
// length.
int num_link_rounds(int num_stages) { return num_stages == 1 ? 0 : 2 + num_stages % 2; }
int link_round(int link, int num_stages) {
  return num_stages % 2 == 1 && link == num_stages - 1 ? 2 : link % 2;
}

// NCCL connects two ranks with their first message of a direction, and keeps both hosts until then: a stage
// that receives ahead would not come to the send without which the other has nothing to answer.
void connect(const Communicator& link) {
  if (link.size() == 1) return;
  const Communicator pair = link.counted_apart();
  const at::Tensor token = at::zeros({1}, at::TensorOptions(pair.device()).dtype(at::kByte));
  for (const int sender : {0, 1}) {
    sender == pair.rank() ? pair.send(token, 1 - sender) : pair.receive(token, sender);
  }
}
}  // namespace

// Link i joins stages i and i + 1.
PipelineLinks::PipelineLinks(const Communicator& axis) : stage_(axis.rank()), num_stages_(axis.size()) {
  for (int round = 0; round < num_link_rounds(num_stages_); ++round) {
    const bool forth = link_round(stage_, num_stages_) == round;
    const bool back = link_round(previous(), num_stages_) == round;
    const int alone = num_stages_ + stage_;
    const Communicator link = axis.subgroup(forth  ? stage_
                                            : back ? previous()
                                                   : alone,
                                            stage_, GroupUse::messages);
    connect(link);
    if (forth) with_next_ = link;
    if (back) with_previous_ = link;
  }
}

// Round by round, as they were made: stages that all ended the same side first would wait for each other in
// a ring.
PipelineLinks::~PipelineLinks() {
  if (link_round(stage_, num_stages_) < link_round(previous(), num_stages_)) with_next_ = {};
  with_previous_ = {};
  with_next_ = {};
}

Work PipelineLinks::send(const at::Tensor& tensor, Phase phase) const {
  const Communicator& link = phase == Phase::forward ? with_next_ : with_previous_;
  return link.send_async(tensor, 1 - link.rank());
}

Work PipelineLinks::receive(const at::Tensor& tensor, Phase phase) const {
  const Communicator& link = phase == Phase::forward ? with_previous_ : with_next_;
  return link.receive_async(tensor, 1 - link.rank());
}

PipelineMail::PipelineMail(const PipelineLinks& links, const PipelineTable& table,
                           const std::vector<bool>& gradient_reaches)
    : links_(links) {
  inbox(Phase::forward).order = link_messages(table, links.previous(), links.stage(), Phase::forward);
  auto& gradients = inbox(Phase::backward).order;
  gradients = link_messages(table, links.next(), links.stage(), Phase::backward);
  std::erase_if(gradients, [&](const PipelineAction& receiver) {
    return !gradient_reaches[table.part(links.stage(), receiver)];
  });
}

void PipelineMail::post(const PipelineAction& action, at::IntArrayRef shape,
                        const at::TensorOptions& options) {
  if (links_.num_stages() == 1) return;
  Inbox& box = inbox(action.phase);
  const auto wanted = std::find(box.order.begin(), box.order.end(), action);
  if (wanted == box.order.end()) return;
  const auto end = static_cast<size_t>(wanted - box.order.begin()) + 1;
  for (; box.num_posted < end; ++box.num_posted) {
    const PipelineAction& receiver = box.order[box.num_posted];
    Parcel& parcel = box.parcels[{receiver.chunk, receiver.micro_batch}];
    parcel.tensor = at::empty(shape, options);
    parcel.work = links_.receive(parcel.tensor, receiver.phase);
  }
}

at::Tensor PipelineMail::take(const PipelineAction& action) {
  auto parcel = inbox(action.phase).parcels.extract({action.chunk, action.micro_batch});
  if (parcel.empty()) return {};
  parcel.mapped().work.wait();
  return std::move(parcel.mapped().tensor);
}

void PipelineMail::send(const PipelineAction& receiver, const at::Tensor& tensor) {
  if (links_.num_stages() == 1) {
    inbox(receiver.phase).parcels[{receiver.chunk, receiver.micro_batch}] = {tensor, {}};
    return;
  }
  std::erase_if(sent_, [](const Parcel& parcel) { return parcel.work.done(); });
  const at::Tensor message = tensor.contiguous();
  sent_.push_back({message, links_.send(message, receiver.phase)});
}

void PipelineMail::finish() {
  for (const Parcel& parcel : sent_) parcel.work.wait();
  sent_.clear();
}

}  // namespace tessera
