package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// peakMemory returns the most memory that a process has had so far, in MiB.
func peakMemory(cmd *exec.Cmd) (float64, error) {
	kib, err := counted(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid), "VmHWM:")
	return float64(kib) / 1024, err
}

// freeMemory returns what the machine could still give away, in bytes.
func freeMemory() (int, error) {
	kib, err := counted("/proc/meminfo", "MemAvailable:")
	return kib << 10, err
}

// counted reads one of Linux's lines in kB.
func counted(path, name string) (kib int, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		}
	}
	return 0, fmt.Errorf("%s: no %s", path, name)
}

// ticks is how often Linux counts a second of CPU time (USER_HZ), on every machine that Go runs on.
const ticks = 100

// cpuTime returns what a process has used, all its threads together.
func cpuTime(cmd *exec.Cmd) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the name may have blanks
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", cmd.Process.Pid, stat)
	}
	var sum int
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks, nil
}
