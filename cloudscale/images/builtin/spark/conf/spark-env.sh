# Spark's scripts read this before they start a Java VM, for a notebook's session and for spark-submit.
# Half of the seat's memory is for Spark's heap; the rest is for the Java VM itself, Jupyter, kernels and Python
# workers. Spark does not start with less than 480 MB.
limit=$(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -n 1)
all=$(($(sed -n 's/^MemTotal: *\([0-9]*\) kB$/\1/p' /proc/meminfo) / 1024))
case $limit in
  "" | max | ???????????????*) limit=$all ;; # no limit; cgroup version 1 shows a number beyond all memory
  *) limit=$((limit / 1048576)) ;;
esac
[ "$limit" -lt "$all" ] || limit=$all
heap=$((limit / 2))
[ "$heap" -gt 480 ] || heap=480
export SPARK_DRIVER_MEMORY="${SPARK_DRIVER_MEMORY:-${heap}m}"
# only this seat uses its Spark
export SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"
