#include "datasets/token_windows.h"

#include <algorithm>

namespace tessera {
namespace {

/// The text with a separator after each document, as one stream.
class Stream {
 public:
  Stream(TokenFilePtr file, int32_t separator) : file_(std::move(file)), separator_(separator) {}

  int64_t num_documents() const { return file_->header().num_documents; }
  /// Where a document starts in the stream; for num_documents() the stream's length.
  int64_t start(int64_t document) const {
    return static_cast<int64_t>(file_->documents()[document]) + (separator_ >= 0 ? document : 0);
  }

  /// Appends the stream's tokens [begin, end).
  void read(int64_t begin, int64_t end, std::vector<int32_t>& tokens) const {
    int64_t document = 0,
            after = num_documents();  // the last one that starts at or before begin, and what follows
    while (after - document > 1) {
      const int64_t middle = document + (after - document) / 2;
      (start(middle) <= begin ? document : after) = middle;
    }
    for (; begin < end; ++document) {
      const int64_t shift = start(document) - static_cast<int64_t>(file_->documents()[document]);
      const int64_t text_end = start(document + 1) - (separator_ >= 0 ? 1 : 0);
      const int64_t stop = std::min(end, text_end);
      if (begin < stop) file_->read(begin - shift, stop - shift, tokens);
      begin = std::max(begin, stop);
      if (begin < end && separator_ >= 0) {
        tokens.push_back(separator_);
        ++begin;
      }
    }
  }

 private:
  TokenFilePtr file_;
  int32_t separator_;
};

class Windows : public Dataset {
 public:
  Windows(TokenFilePtr file, const WindowOptions& options)
      : stream_(std::move(file), options.separator), options_(options) {
    const int64_t overlap = options.window - options.stride, length = stream_.start(stream_.num_documents());
    if (options.pack == Pack::join) {
      size_ = length < options.window ? 0 : (length - overlap) / options.stride;
      return;
    }
    first_window_.reserve(stream_.num_documents() + 1);
    for (int64_t i = 0; i < stream_.num_documents(); ++i) {
      first_window_.push_back(size_);
      const int64_t tokens = stream_.start(i + 1) - stream_.start(i) - overlap;
      size_ += tokens > 0 ? (tokens + options.stride - 1) / options.stride : 0;
    }
    first_window_.push_back(size_);
  }

  int64_t size() const override { return size_; }

  Example get(int64_t index) const override {
    int64_t begin = index * options_.stride, limit = begin + options_.window;
    if (options_.pack == Pack::documents) {
      const int64_t document =
          std::upper_bound(first_window_.begin(), first_window_.end(), index) - first_window_.begin() - 1;
      begin = stream_.start(document) + (index - first_window_[document]) * options_.stride;
      limit = std::min(begin + options_.window, stream_.start(document + 1));
    }
    Example example;
    example.index = index;
    example.tokens.reserve(options_.window + 2);
    if (options_.prefix >= 0) example.tokens.push_back(options_.prefix);
    stream_.read(begin, limit, example.tokens);
    if (options_.suffix >= 0) example.tokens.push_back(options_.suffix);
    return example;
  }

 private:
  Stream stream_;
  WindowOptions options_;
  int64_t size_ = 0;
  std::vector<int64_t> first_window_;  // by documents only: of each document, and the total
};

}  // namespace

DatasetPtr token_windows(TokenFilePtr file, const WindowOptions& options) {
  return std::make_shared<Windows>(std::move(file), options);
}

}  // namespace tessera
