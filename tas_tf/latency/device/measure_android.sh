#!/bin/sh
# Times the networks in this folder on an Android device with TFLite's own benchmark_model, see measure.py.
#   sh measure_android.sh PATH_OF_BENCHMARK_MODEL [CORES]
# benchmark_model comes from https://ai.google.dev/edge/litert/models/measurement; adb must list one device. CORES is a
# mask for taskset: f0 keeps it on cores 4 to 7, which are the fast ones of many phones.
set -eu
benchmark=${1:?"give the path of benchmark_model for the device's processor"}
cores=${2:-}
if [ ! -f "$benchmark" ]; then
  echo "error: there is no file $benchmark" >&2
  exit 1
fi
benchmark=$(cd "$(dirname "$benchmark")" && pwd)/$(basename "$benchmark")
cd "$(dirname "$0")"
place=/data/local/tmp/tas_tf_probe
threads=$(python3 -c 'import json; print(json.load(open("shapes.json"))["threads"])')
tool=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()[:12])' "$benchmark")
files=$(python3 measure.py --android_order)

trap 'adb shell rm -rf "$place" </dev/null' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
adb shell mkdir -p "$place"
adb push "$benchmark" "$place/benchmark_model" >/dev/null
adb shell chmod +x "$place/benchmark_model"
adb push ./*.tflite "$place/" >/dev/null
model=$(adb shell getprop ro.product.model | tr -d '\r')
echo "device: ${model:-Android}${cores:+, cores $cores}" >android.log
echo "benchmark_model: $tool" >>android.log
count=0
total=$(echo "$files" | wc -w | tr -d " ")
for file in $files; do
  output=$(adb shell ${cores:+taskset "$cores"} "$place/benchmark_model" --graph="$place/$file" \
    --num_threads="$threads" --use_xnnpack=true --warmup_runs=5 --num_runs=50 </dev/null 2>&1) || true
  printf '== %s\n%s\n' "$file" "$output" >>android.log
  # Old versions of adb don't pass on exit codes.
  case $output in
    *"Inference (avg):"*) ;;
    *)
      echo "error: benchmark_model didn't time $file, see android.log:" >&2
      printf '%s\n' "$output" | tail -n 5 >&2
      exit 1
      ;;
  esac
  count=$((count + 1))
  if [ $((count % 10)) = 0 ]; then echo "$count of $total calls timed"; fi
done
python3 measure.py --from_android android.log
