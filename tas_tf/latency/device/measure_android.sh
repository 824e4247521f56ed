#!/bin/sh
# Times the networks in this folder on an Android device with TFLite's own benchmark_model, and writes latency.json.
#   sh measure_android.sh PATH_OF_BENCHMARK_MODEL
# benchmark_model comes from https://ai.google.dev/edge/litert/models/measurement; adb must list one device.
set -eu
cd "$(dirname "$0")"
benchmark=${1:?"give the path of benchmark_model for the device's processor"}
place=/data/local/tmp/tas_tf_probe
threads=$(python3 -c 'import json; print(json.load(open("shapes.json"))["threads"])')

adb shell mkdir -p "$place"
adb push "$benchmark" "$place/benchmark_model" >/dev/null
adb shell chmod +x "$place/benchmark_model"
adb push ./*.tflite "$place/" >/dev/null
echo "device: $(adb shell getprop ro.product.model)" >android.log
# The second time in reverse order: a device that becomes hot slows the first ones down as well.
for half in 1 2; do
  for file in $(ls [0-9]*.tflite | if [ $half = 1 ]; then sort; else sort -r; fi); do
    echo "== $file" >>android.log
    adb shell "$place/benchmark_model" --graph="$place/$file" --num_threads="$threads" --use_xnnpack=true \
      --warmup_runs=5 --num_runs=50 </dev/null >>android.log 2>&1
  done
  echo "half $half of 2 done"
done
adb shell rm -r "$place"
python3 measure.py --from_android android.log
