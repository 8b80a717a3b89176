package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

// cpuTime returns what a process has used, all its threads together.
func cpuTime(cmd *exec.Cmd) (time.Duration, error) {
	clock := int32(^cmd.Process.Pid<<3 | 2) // CPUCLOCK_SCHED of the whole process: clock_getcpuclockid(3)
	var t unix.Timespec
	err := unix.ClockGettime(clock, &t)
	return time.Duration(t.Nano()), err
}

func cpuTimes(processes []*exec.Cmd) (times []time.Duration, err error) {
	for _, p := range processes {
		t, err := cpuTime(p)
		if err != nil {
			return nil, err
		}
		times = append(times, t)
	}
	return times, nil
}

// usage is CPU time that was used until an instant.
type cpuUsage struct {
	at        time.Time
	processes []time.Duration
	machine   time.Duration // by everybody
}

func readUsage(processes []*exec.Cmd) (u cpuUsage, err error) {
	u.at = time.Now()
	if u.processes, err = cpuTimes(processes); err != nil {
		return u, err
	}
	u.machine, err = machineTime()
	return u, err
}

// cpuSpan is CPU time that was used between two instants.
type cpuSpan struct {
	elapsed   time.Duration
	processes []time.Duration
	machine   time.Duration
}

func (u cpuUsage) since(before cpuUsage) cpuSpan {
	s := cpuSpan{elapsed: u.at.Sub(before.at), machine: u.machine - before.machine}
	for i := range u.processes {
		s.processes = append(s.processes, u.processes[i]-before.processes[i])
	}
	return s
}

func (s cpuSpan) sum() (all time.Duration) {
	for _, p := range s.processes {
		all += p
	}
	return all
}

// capacity is what the machine could have used.
func (s cpuSpan) capacity() time.Duration { return s.elapsed * time.Duration(runtime.NumCPU()) }

// ticks is how often Linux counts a second of CPU time (USER_HZ), on every machine that Go runs on.
const ticks = 100

// machineTime returns the CPU time that the machine did not idle.
func machineTime() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	var busy int
	for i, field := range strings.Fields(line) {
		n, err := strconv.Atoi(field)
		if i == 0 || i == 4 || i == 5 || i > 8 { // the line's name, idle, iowait; guests count as user
			continue
		}
		if err != nil {
			return 0, err
		}
		busy += n
	}
	return time.Duration(busy) * time.Second / ticks, nil
}
