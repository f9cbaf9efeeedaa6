#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "datasets/text_input.h"
#include "recipes/error.h"

namespace tessera {
namespace {

constexpr size_t input_bytes = size_t{1} << 17;

class Plain : public ByteSource {
 public:
  explicit Plain(const std::string& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  }
  size_t read(char* buffer, size_t capacity) override {
    file_.read(buffer, static_cast<std::streamsize>(capacity));
    if (file_.bad())
      throw Error(fmt::format("{}: cannot be read at byte {}: {}", path_, position_, std::strerror(errno)));
    position_ += file_.gcount();
    return static_cast<size_t>(file_.gcount());
  }
  int64_t position() const override { return position_; }

 private:
  std::string path_;
  std::ifstream file_;
  int64_t position_ = 0;
};

/// What the two decompressors share: a buffer of compressed bytes and the complaint about bad ones.
class Compressed : public ByteSource {
 public:
  Compressed(const std::string& path, const char* format) : path_(path), format_(format), file_(path) {
    input_.resize(input_bytes);
  }
  int64_t position() const override { return file_.position(); }

 protected:
  /// More compressed bytes into input_; 0 at the end of the file.
  size_t refill() { return file_.read(input_.data(), input_.size()); }
  [[noreturn]] void damaged(const std::string& what) const {
    throw Error(fmt::format("{}: damaged {} file near byte {}: {}", path_, format_, position(), what));
  }
  std::vector<char> input_;

 private:
  std::string path_;
  const char* format_;
  Plain file_;
};

class Gzip : public Compressed {
 public:
  explicit Gzip(const std::string& path) : Compressed(path, "gzip") { inflateInit2(&stream_, 15 + 16); }
  ~Gzip() override { inflateEnd(&stream_); }
  size_t read(char* buffer, size_t capacity) override {
    stream_.next_out = reinterpret_cast<Bytef*>(buffer);
    stream_.avail_out = static_cast<uInt>(capacity);
    while (stream_.avail_out == capacity) {
      if (stream_.avail_in == 0) {
        stream_.avail_in = static_cast<uInt>(refill());
        stream_.next_in = reinterpret_cast<Bytef*>(input_.data());
        if (stream_.avail_in == 0 && !member_ended_) damaged("it is cut off");
        if (stream_.avail_in == 0) break;
      }
      if (member_ended_) inflateReset(&stream_);  // files may be several gzip members in a row
      const int status = inflate(&stream_, Z_NO_FLUSH);
      if (status != Z_OK && status != Z_STREAM_END) damaged(stream_.msg ? stream_.msg : "bad data");
      member_ended_ = status == Z_STREAM_END;
    }
    return capacity - stream_.avail_out;
  }

 private:
  z_stream stream_{};
  bool member_ended_ = false;
};

class Zstandard : public Compressed {
 public:
  explicit Zstandard(const std::string& path) : Compressed(path, "zstd") {}
  size_t read(char* buffer, size_t capacity) override {
    ZSTD_outBuffer output{buffer, capacity, 0};
    while (output.pos == 0) {
      if (window_.pos == window_.size && !pending_) {
        window_ = {input_.data(), refill(), 0};
        if (window_.size == 0 && wanted_ != 0) damaged("it is cut off");
        if (window_.size == 0) break;
      }
      wanted_ = ZSTD_decompressStream(stream_.get(), &output, &window_);
      if (ZSTD_isError(wanted_)) damaged(ZSTD_getErrorName(wanted_));
      pending_ = output.pos == output.size;  // a full output may have more behind it
    }
    return output.pos;
  }

 private:
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_{ZSTD_createDStream(), ZSTD_freeDStream};
  ZSTD_inBuffer window_{nullptr, 0, 0};
  size_t wanted_ = 0;  // 0 = at the end of a frame
  bool pending_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> ByteSource::open(const std::string& path) {
  unsigned char head[4] = {};
  Plain(path).read(reinterpret_cast<char*>(head), sizeof head);
  if (head[0] == 0x1F && head[1] == 0x8B) return std::make_unique<Gzip>(path);
  if (head[0] == 0x28 && head[1] == 0xB5 && head[2] == 0x2F && head[3] == 0xFD)
    return std::make_unique<Zstandard>(path);
  return std::make_unique<Plain>(path);
}

}  // namespace tessera
