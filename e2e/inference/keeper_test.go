package inference

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// keeper is a process that outlives the tests, even if they are killed, and then ends what they have started and removes what they have made.
type keeper struct {
	cmd   *exec.Cmd
	lines io.WriteCloser // its end is that of the tests
}

// keeps is the variable that makes a test binary a keeper, and leaves the one that makes it start a server and die.
const keeps, leaves = "CONNSWAP_TEST_KEEPS", "CONNSWAP_TEST_LEAVES"

var kept keeper

func startKeeper() (k keeper, err error) {
	k.cmd = exec.Command(os.Args[0])
	k.cmd.Env = append(os.Environ(), keeps+"=1")
	k.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it stays when the tests' group is interrupted
	if k.lines, err = k.cmd.StdinPipe(); err != nil {
		return k, err
	}
	return k, k.cmd.Start()
}

// add has the processes of a group ended.
func (k keeper) add(group int) { k.say("add", strconv.Itoa(group)) }

// forget is for a group that has ended.
func (k keeper) forget(group int) { k.say("forget", strconv.Itoa(group)) }

// remove has a directory removed.
func (k keeper) remove(dir string) { k.say("remove", dir) }

// say writes short lines, which a pipe takes as a whole. A keeper that is gone keeps nothing.
func (k keeper) say(what, which string) { _, _ = fmt.Fprintf(k.lines, "%s %s\n", what, which) }

// stop waits until all has been ended and removed.
func (k keeper) stop() error {
	_ = k.lines.Close()
	return k.cmd.Wait()
}

// keep is what a keeper does.
func keep(lines io.Reader) {
	groups, dirs := map[int]bool{}, []string{}
	for in := bufio.NewScanner(lines); in.Scan(); {
		what, which, _ := strings.Cut(in.Text(), " ")
		group, _ := strconv.Atoi(which) // where it is one
		switch what {
		case "add":
			groups[group] = true
		case "forget":
			delete(groups, group)
		case "remove":
			dirs = append(dirs, which)
		}
	}
	for group := range groups {
		_ = syscall.Kill(-group, syscall.SIGKILL) // it may have ended
	}
	for _, dir := range dirs {
		_ = os.RemoveAll(dir)
	}
}

// TestNothingIsLeft has tests be killed while a server of theirs runs, with a runner: both are ended, and what they made is removed.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv(leaves) != "" {
		s := startServer(t)
		s.complete(t, document{"model": "words", "prompt": "the", "max_tokens": 1})
		models, err := store()
		require.NoError(t, err)
		fmt.Printf("left %d %s\n", s.cmd.Process.Pid, models)
		require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeft$")
	cmd.Env = append(os.Environ(), leaves+"=1")
	out, err := cmd.Output()
	require.ErrorContains(t, err, "killed")
	var group int
	var models string
	_, err = fmt.Sscanf(string(out), "left %d %s", &group, &models)
	require.NoError(t, err, "%s", out)
	require.Eventually(t, func() bool {
		_, err := os.Stat(models)
		return os.IsNotExist(err) && syscall.Kill(-group, 0) != nil
	}, 10*time.Second, 20*time.Millisecond, "the server, or its runner, or its models are left")
}
