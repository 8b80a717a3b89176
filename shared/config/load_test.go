package config_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/connswap/connswap/shared/config"
)

// setenv replaces every variable of the project by those of env, whose names lack the prefix.
func setenv(t *testing.T, env map[string]string) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, config.Prefix) {
			t.Setenv(name, "")
			require.NoError(t, os.Unsetenv(name)) // put back by Setenv's cleanup
		}
	}
	for name, value := range env {
		t.Setenv(config.Prefix+"_"+name, value)
	}
}

func TestDefaults(t *testing.T) {
	setenv(t, nil)
	host, err := os.Hostname()
	require.NoError(t, err)

	director, err := config.LoadDirector()
	require.NoError(t, err)
	require.Equal(t, host, director.ID)
	director.ID = ""
	require.Equal(t, config.DefaultDirector(), director)
	require.Equal(t, ":61000", director.UserAddr)
	require.Equal(t, 5*time.Second, director.HeartbeatInterval)

	worker, err := config.LoadWorker()
	require.NoError(t, err)
	require.Equal(t, host, worker.Label)
	worker.Label = ""
	require.Equal(t, config.DefaultWorker(), worker)
	require.Equal(t, []string{"localhost:61001"}, worker.Directors)

	client, err := config.LoadClient()
	require.NoError(t, err)
	require.Equal(t, config.DefaultClient(), client)
}

func TestClientNames(t *testing.T) {
	setenv(t, map[string]string{"DIRECTOR_CLIENT_AUTH": "certificate", "DIRECTOR_CLIENT_NAMES": "alice, bob"})
	director, err := config.LoadDirector()
	require.NoError(t, err)
	require.Equal(t, []string{"alice", "bob"}, director.ClientNames)
}

func TestPlainTerminal(t *testing.T) {
	for _, test := range []struct {
		noColor, term string
		want          bool
	}{{"", "xterm", false}, {"1", "xterm", true}, {"0", "xterm", true}, {"", "dumb", true}, {"", "", false}} {
		t.Setenv("NO_COLOR", test.noColor)
		t.Setenv("TERM", test.term)
		require.Equal(t, test.want, config.PlainTerminal(), test)
	}
}

func TestDefaultsAreOnesOwn(t *testing.T) {
	first := config.DefaultWorker()
	first.Directors[0] = "elsewhere:1"
	require.Equal(t, "localhost:61001", config.DefaultWorker().Directors[0])
}

func TestLoad(t *testing.T) {
	setenv(t, map[string]string{
		"DIRECTOR_MGMT_ADDR":    "one:61001, two:61001,[::1]:61001",
		"WORKER_LABEL":          "worker-a",
		"WORKER_TOKEN_INTERVAL": "0",
		"WORKER_CAPACITY":       "7",
		"WORKER_FAILURE_SEED":   "18446744073709551615",
		"PACKET_LOSS":           "0.25",
		"DIRECTOR_MAX_TOKENS":   "of no interest to a worker",
	})
	worker, err := config.LoadWorker()
	require.NoError(t, err)
	require.Equal(t, []string{"one:61001", "two:61001", "[::1]:61001"}, worker.Directors)
	require.Equal(t, "worker-a", worker.Label)
	require.Zero(t, worker.TokenInterval)
	require.Equal(t, 7, worker.Capacity)
	require.Equal(t, uint64(1<<64-1), worker.FailureSeed)
	require.InDelta(t, 0.25, worker.PacketLoss, 0)
}

func TestEmptyIsDefault(t *testing.T) {
	setenv(t, map[string]string{"WORKER_CAPACITY": "", "WORKER_RECOVERY": "", "WORKER_ENGINE": "", "PACKET_LOSS": "", "DIRECTOR_MGMT_ADDR": ""})
	worker, err := config.LoadWorker()
	require.NoError(t, err)
	worker.Label = ""
	require.Equal(t, config.DefaultWorker(), worker)
}

// envconfig alone would take LOG_LEVEL where CONNECTION_SWAP_LOG_LEVEL is not set.
func TestNamesWithoutPrefixMeanNothing(t *testing.T) {
	setenv(t, nil)
	t.Setenv("LOG_LEVEL", "nonsense")
	t.Setenv("DIRECTOR_TARGET", "nonsense")
	_, err := config.LoadClient()
	require.NoError(t, err)
}

func TestEnvironmentStaysAsItWas(t *testing.T) {
	setenv(t, map[string]string{"WORKER_CAPACITY": "many", "WORKER_ENGINE": "", "WORKER_LABEL": "worker-a"})
	before := os.Environ()
	_, err := config.LoadWorker()
	require.Error(t, err)
	require.ElementsMatch(t, before, os.Environ())
}

func TestProblems(t *testing.T) {
	type env map[string]string
	director := func() error { _, err := config.LoadDirector(); return err }
	worker := func() error { _, err := config.LoadWorker(); return err }
	client := func() error { _, err := config.LoadClient(); return err }
	tests := []struct {
		name string
		load func() error
		env  env
		want []string // one for each line, without CONNECTION_SWAP_
	}{
		{"misspelt", worker, env{"WORKER_CAPACTIY": "5"}, []string{`WORKER_CAPACTIY="5": no such variable; did you mean CONNECTION_SWAP_WORKER_CAPACITY?`}},
		{"misspelt, of another role", client, env{"WORKER_LABLE": "a"}, []string{`WORKER_LABLE="a": no such variable; did you mean CONNECTION_SWAP_WORKER_LABEL?`}},
		{"a key in a variable", client, env{"CLIENT_KEY": "sk-secret"}, []string{`CLIENT_KEY="…": no such variable; did you mean CONNECTION_SWAP_CLIENT_KEY_FILE?`}},
		{"small letters", worker, env{"worker_label": "a"}, []string{`worker_label="a": no such variable; did you mean CONNECTION_SWAP_WORKER_LABEL?`}},
		{"misspelt and empty", client, env{"OUTPUT": ""}, []string{`OUTPUT="": no such variable; did you mean CONNECTION_SWAP_CLIENT_OUTPUT?`}},
		{"duration without unit", worker, env{"WORKER_RECOVERY": "10"}, []string{`WORKER_RECOVERY="10": not a duration; give a number with a unit (ms, s, m, h), such as 10s`}},
		{"not a number", worker, env{"WORKER_CAPACITY": "many"}, []string{`WORKER_CAPACITY="many": not a whole number; give one such as 1024`}},
		{"number too big", worker, env{"WORKER_CAPACITY": "99999999999999999999"}, []string{`WORKER_CAPACITY="99999999999999999999": not a whole number; give one such as 1024`}},
		{"below 0", client, env{"CLIENT_SEED": "-1"}, []string{`CLIENT_SEED="-1": not a whole number from 0 to 18446744073709551615; give one such as 1`}},
		{"not a fraction", worker, env{"PACKET_LOSS": "20%"}, []string{`PACKET_LOSS="20%": not a number; give one such as 0`}},
		{"not a switch", director, env{"MGMT_PLAIN_STATUS": "yes"}, []string{`MGMT_PLAIN_STATUS="yes": give true or false; false if it is left out`}},
		{"value of two lines", client, env{"LOG_LEVEL": "a\nb"}, []string{`LOG_LEVEL="a\nb": unknown; give debug, info, warn or error`}},

		{"names without certificates", director, env{"DIRECTOR_CLIENT_NAMES": "alice"}, []string{`DIRECTOR_CLIENT_NAMES="alice": only with CONNECTION_SWAP_DIRECTOR_CLIENT_AUTH=certificate`}},
		{"no name", director, env{"DIRECTOR_CLIENT_AUTH": "certificate", "DIRECTOR_CLIENT_NAMES": "alice,b b"}, []string{`DIRECTOR_CLIENT_NAMES="b b": not a name; give 1 to 253 letters, digits, dashes, dots and underscores, such as worker-a`}},
		{"another proof", director, env{"DIRECTOR_CLIENT_AUTH": "password"}, []string{`DIRECTOR_CLIENT_AUTH="password": unknown; give none or certificate`}},
		{"too little memory", director, env{"DIRECTOR_MAX_BYTES": "1000"}, []string{`DIRECTOR_MAX_BYTES="1000": 0 to have it found out, or at least 16777216 (bytes)`}},

		{"octal to some", worker, env{"WORKER_CAPACITY": "010"}, []string{`WORKER_CAPACITY="010": a number that begins with 0 is decimal to some and octal to others; write 10, or 8 if octal was meant`}},
		{"octal to nobody", client, env{"CLIENT_SEED": "089"}, []string{`CLIENT_SEED="089": a number must not begin with 0; write 89`}},
		{"octal below 0", client, env{"CLIENT_PRIORITY": "-010"}, []string{`CLIENT_PRIORITY="-010": a number that begins with 0 is decimal to some and octal to others; write -10, or -8 if octal was meant`}},
		{"zeros", client, env{"CLIENT_MAX_TOKENS": "00"}, []string{`CLIENT_MAX_TOKENS="00": a number must not begin with 0; write 0`}},
		{"hexadecimal", worker, env{"WORKER_CAPACITY": "0x10"}, []string{`WORKER_CAPACITY="0x10": write it in decimal digits, as 16`}},
		{"binary", worker, env{"WORKER_CAPACITY": "0b1"}, []string{`WORKER_CAPACITY="0b1": write it in decimal digits, as 1`}},
		{"octal of Go", client, env{"CLIENT_SEED": "0o17"}, []string{`CLIENT_SEED="0o17": write it in decimal digits, as 15`}},
		{"underscore", director, env{"DIRECTOR_MAX_TOKENS": "1_000"}, []string{`DIRECTOR_MAX_TOKENS="1_000": write it in decimal digits, as 1000`}},
		{"plus", director, env{"DIRECTOR_MAX_TOKENS": "+5"}, []string{`DIRECTOR_MAX_TOKENS="+5": write it in decimal digits, as 5`}},
		{"exponent", director, env{"DIRECTOR_MAX_TOKENS": "1e3"}, []string{`DIRECTOR_MAX_TOKENS="1e3": write it in decimal digits, as 1000`}},
		{"spaces", worker, env{"WORKER_FAILURE_SEED": " 7 "}, []string{`WORKER_FAILURE_SEED=" 7 ": write it in decimal digits, as 7`}},
		{"other digits", worker, env{"WORKER_CAPACITY": "١٢"}, []string{`WORKER_CAPACITY="١٢": not a whole number; give one such as 1024`}},
		{"hexadecimal fraction", worker, env{"PACKET_LOSS": "0x1p-2"}, []string{`PACKET_LOSS="0x1p-2": write it in decimal digits, as 0.25`}},
		{"fraction beyond all", worker, env{"PACKET_LOSS": "1e400"}, []string{`PACKET_LOSS="1e400": not a number; give one such as 0`}},
		{"infinity", director, env{"DIRECTOR_TOKEN_TIMEOUT_FACTOR": "Inf"}, []string{`DIRECTOR_TOKEN_TIMEOUT_FACTOR="+Inf": out of range; give a number from 1 to 1000`}},
		{"duration with a space", worker, env{"WORKER_RECOVERY": "10 s"}, []string{`WORKER_RECOVERY="10 s": not a duration; give a number with a unit (ms, s, m, h), such as 10s`}},
		{"duration beyond all", worker, env{"WORKER_RECOVERY": "9999999h"}, []string{`WORKER_RECOVERY="9999999h": not a duration; give a number with a unit (ms, s, m, h), such as 10s`}},
		{"duration of a life", director, env{"HEARTBEAT_INTERVAL": "2000000h", "DIRECTOR_LINK_IDLE_TIMEOUT": "721h"}, []string{
			`HEARTBEAT_INTERVAL="2000000h0m0s": too long; give at most 720h0m0s`,
			`DIRECTOR_LINK_IDLE_TIMEOUT="721h0m0s": too long; give at most 720h0m0s`,
		}},
		{"numbers beyond the wire", director, env{"DIRECTOR_MAX_TOKENS": "4294967296", "DIRECTOR_REBALANCE_PACE": "2000000000"}, []string{
			`DIRECTOR_MAX_TOKENS="4294967296": too high; give at most 2147483647`,
			`DIRECTOR_REBALANCE_PACE="2000000000": out of range; give a number from 1 to 1000000`,
		}},
		{"capacity beyond the wire", worker, env{"WORKER_CAPACITY": "4294967297"}, []string{`WORKER_CAPACITY="4294967297": too high; give at most 2147483647`}},
		{"in the order of the structs", worker, env{"WORKER_RECOVERY": "soon", "WORKER_CAPACITY": "010", "HEARTBEAT_INTERVAL": "x"}, []string{
			`HEARTBEAT_INTERVAL="x": not a duration; give a number with a unit (ms, s, m, h), such as 5s`,
			`WORKER_CAPACITY="010": a number that begins with 0 is decimal to some and octal to others; write 10, or 8 if octal was meant`,
			`WORKER_RECOVERY="soon": not a duration; give a number with a unit (ms, s, m, h), such as 10s`,
		}},

		{"min above max", worker, env{"WORKER_FAILURE_MIN": "40s"}, []string{`WORKER_FAILURE_MIN="40s": above CONNECTION_SWAP_WORKER_FAILURE_MAX="25s"; give at most 25s, or raise the other`}},
		{"min above what is no max", worker, env{"WORKER_FAILURE_MIN": "40s", "WORKER_FAILURE_MAX": "x"}, []string{`WORKER_FAILURE_MAX="x": not a duration; give a number with a unit (ms, s, m, h), such as 25s`}},
		{"min below 0", worker, env{"WORKER_FAILURE_MIN": "-1s"}, []string{`WORKER_FAILURE_MIN="-1s": below 0; give 0 or a duration such as 1s`}},
		{"recovery of 0", worker, env{"WORKER_RECOVERY": "0"}, []string{`WORKER_RECOVERY="0s": not above 0; give a duration such as 1s`}},

		{"no port", worker, env{"WORKER_USER_ADDR": "localhost"}, []string{`WORKER_USER_ADDR="localhost": not an address; give [host]:port such as :61000`}},
		{"port too high", director, env{"DIRECTOR_USER_ADDR": ":66000"}, []string{`DIRECTOR_USER_ADDR=":66000": the port is not a number from 0 to 65535; give [host]:port such as :61000`}},
		{"port with a zero", client, env{"DIRECTOR_TARGET": "localhost:010"}, []string{`DIRECTOR_TARGET="localhost:010": the port begins with 0; write 10; give host:port such as localhost:61000`}},
		{"port with a plus", worker, env{"WORKER_USER_ADDR": ":+62001"}, []string{`WORKER_USER_ADDR=":+62001": the port is not a number from 0 to 65535; give [host]:port such as :61000`}},
		{"octal address", client, env{"DIRECTOR_TARGET": "010.0.0.1:61000"}, []string{`DIRECTOR_TARGET="010.0.0.1:61000": "010.0.0.1" looks like an address and is none; give host:port such as localhost:61000`}},
		{"hexadecimal address", director, env{"DIRECTOR_USER_ADDR": "0x7f000001:61000"}, []string{`DIRECTOR_USER_ADDR="0x7f000001:61000": "0x7f000001" looks like an address and is none; give [host]:port such as :61000`}},
		{"port of name", director, env{"DIRECTOR_MGMT_ADDR": ":http"}, []string{`DIRECTOR_MGMT_ADDR=":http": the port is not a number from 0 to 65535; give [host]:port such as :61000`}},
		{"port 0 to dial", client, env{"DIRECTOR_TARGET": "localhost:0"}, []string{`DIRECTOR_TARGET="localhost:0": the port is not a number from 1 to 65535; give host:port such as localhost:61000`}},
		{"no host to dial", client, env{"DIRECTOR_TARGET": ":61000"}, []string{`DIRECTOR_TARGET=":61000": no host; give host:port such as localhost:61000`}},
		{"a URL", client, env{"DIRECTOR_TARGET": "http://localhost:61000"}, []string{`DIRECTOR_TARGET="http://localhost:61000": not an address; give host:port such as localhost:61000`}},
		{"a path", client, env{"DIRECTOR_TARGET": "a/b:61000"}, []string{`DIRECTOR_TARGET="a/b:61000": the host has a character that no host name has; give host:port such as localhost:61000`}},
		{"advertised nowhere", worker, env{"WORKER_ADVERTISE_USER_ADDR": "0.0.0.0:62001", "WORKER_ADVERTISE_MGMT_ADDR": "[::]:63001"}, []string{
			`WORKER_ADVERTISE_USER_ADDR="0.0.0.0:62001": 0.0.0.0 stands for all addresses of one's own machine, others cannot dial it; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
			`WORKER_ADVERTISE_MGMT_ADDR="[::]:63001": :: stands for all addresses of one's own machine, others cannot dial it; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
		}},
		{"advertised in disguise", worker, env{"WORKER_ADVERTISE_USER_ADDR": "[::ffff:0.0.0.0]:62001", "WORKER_ADVERTISE_MGMT_ADDR": "0:63001"}, []string{
			`WORKER_ADVERTISE_USER_ADDR="[::ffff:0.0.0.0]:62001": ::ffff:0.0.0.0 stands for all addresses of one's own machine, others cannot dial it; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
			`WORKER_ADVERTISE_MGMT_ADDR="0:63001": "0" looks like an address and is none; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
		}},
		{"advertised to many", worker, env{"WORKER_ADVERTISE_USER_ADDR": "224.0.0.1:62001", "WORKER_ADVERTISE_MGMT_ADDR": "255.255.255.255:63001"}, []string{
			`WORKER_ADVERTISE_USER_ADDR="224.0.0.1:62001": 224.0.0.1 is a multicast address; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
			`WORKER_ADVERTISE_MGMT_ADDR="255.255.255.255:63001": 255.255.255.255 is the broadcast address; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
		}},
		{"advertised to many, IPv6", worker, env{"WORKER_ADVERTISE_USER_ADDR": "[ff02::1]:62001", "WORKER_ADVERTISE_MGMT_ADDR": "a:0"}, []string{
			`WORKER_ADVERTISE_USER_ADDR="[ff02::1]:62001": ff02::1 is a multicast address; give host:port as others reach this worker, such as worker-a.example:62001, or leave it empty`,
			`WORKER_ADVERTISE_MGMT_ADDR="a:0": the port is not a number from 1 to 65535; give host:port such as localhost:61000`,
		}},
		{"lost before it is pinged", client, env{"CLIENT_KEEP_ALIVE": "6s"}, []string{
			`CLIENT_IDLE_TIMEOUT="6s": not above CONNECTION_SWAP_CLIENT_KEEP_ALIVE="6s"; give at least twice that`,
		}},
		{"served to many", worker, env{"WORKER_USER_ADDR": "224.0.0.1:62001", "DIRECTOR_MGMT_ADDR": "255.255.255.255:61001"}, []string{
			`WORKER_USER_ADDR="224.0.0.1:62001": 224.0.0.1 is a multicast address; give [host]:port such as :61000`,
			`DIRECTOR_MGMT_ADDR="255.255.255.255:61001": 255.255.255.255 is the broadcast address; give host:port such as localhost:61000`,
		}},
		{"advertised without host", worker, env{"WORKER_ADVERTISE_USER_ADDR": ":1", "WORKER_ADVERTISE_MGMT_ADDR": "x"}, []string{
			`WORKER_ADVERTISE_USER_ADDR=":1": no host; give host:port such as localhost:61000`,
			`WORKER_ADVERTISE_MGMT_ADDR="x": not an address; give host:port such as localhost:61000`,
		}},
		{"directors", worker, env{"DIRECTOR_MGMT_ADDR": "a:1,,b"}, []string{
			`DIRECTOR_MGMT_ADDR="": not an address; give host:port such as localhost:61000`,
			`DIRECTOR_MGMT_ADDR="b": not an address; give host:port such as localhost:61000`,
		}},
		{"no directors", worker, env{"DIRECTOR_MGMT_ADDR": " "}, []string{`DIRECTOR_MGMT_ADDR="": no director; give a list of host:port such as localhost:61001`}},

		{"engine", worker, env{"WORKER_ENGINE": "markow"}, []string{`WORKER_ENGINE="markow": unknown; give markov, counter or stateful, or upstream alone`}},
		{"upstream without a server", worker, env{"WORKER_ENGINE": "upstream"}, []string{
			`WORKER_UPSTREAM_URL="": the engine upstream needs a server; give one such as http://127.0.0.1:8000`,
		}},
		{"upstream, and others", worker, env{"WORKER_ENGINE": "markov,upstream=2"}, []string{
			`WORKER_ENGINE="markov,upstream=2": upstream stands alone, without other engines and without a number; the models are the server's (CONNECTION_SWAP_WORKER_UPSTREAM_MODELS)`,
		}},
		{"upstream that nobody asks", worker, env{"WORKER_UPSTREAM_URL": "http://localhost:8000"}, []string{
			`WORKER_UPSTREAM_URL="http://localhost:8000": only with CONNECTION_SWAP_WORKER_ENGINE=upstream`,
		}},
		{"upstream of no use", worker, env{
			"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "http://me:secret@localhost", "WORKER_UPSTREAM_KIND": "tgi", "WORKER_UPSTREAM_KEY_FILE": "/nowhere",
			"WORKER_UPSTREAM_MODELS": "a=b,a", "WORKER_UPSTREAM_SILENCE_TIMEOUT": "0s", "WORKER_UPSTREAM_OVERLAP": "0",
		}, []string{
			`WORKER_UPSTREAM_URL="http://me:xxxxx@localhost": a user or password does not belong there, see CONNECTION_SWAP_WORKER_UPSTREAM_KEY_FILE; give one such as http://127.0.0.1:8000`,
			`WORKER_UPSTREAM_KIND="tgi": unknown; give auto, vllm, sglang, llamacpp, ollama or openai`,
			`WORKER_UPSTREAM_KEY_FILE="/nowhere": cannot be read (open /nowhere: no such file or directory); give a file with a key`,
			`WORKER_UPSTREAM_MODELS="a=b,a": a stands there twice`,
			`WORKER_UPSTREAM_SILENCE_TIMEOUT="0s": not above 0; give a duration such as 1s`,
			`WORKER_UPSTREAM_OVERLAP="0": out of range; give a number from 1 to 64`,
		}},
		{"upstream without a scheme", worker, env{"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "localhost:8000"}, []string{
			`WORKER_UPSTREAM_URL="localhost:8000": no URL of a server; give one such as http://127.0.0.1:8000`,
		}},
		{"upstream with a model that cannot be printed", worker, env{"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "http://localhost:8000", "WORKER_UPSTREAM_MODELS": "a\tb=m"}, []string{
			`WORKER_UPSTREAM_MODELS="a\tb=m": "a\tb": not a name of a model; give 1 to 260 bytes of what can be printed`,
		}},
		{"upstream with a password, and no scheme", worker, env{"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "me:secret@localhost:8000"}, []string{
			`WORKER_UPSTREAM_URL="…": no URL of a server; give one such as http://127.0.0.1:8000`,
		}},
		{"upstream with a key", worker, env{"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "http://secret@localhost:8000"}, []string{
			`WORKER_UPSTREAM_URL="http://xxxxx@localhost:8000": a user or password does not belong there, see CONNECTION_SWAP_WORKER_UPSTREAM_KEY_FILE; give one such as http://127.0.0.1:8000`,
		}},
		{"upstream with a key in a query", worker, env{"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "http://localhost:8000?key=secret"}, []string{
			`WORKER_UPSTREAM_URL="…": a query or fragment does not belong there; give one such as http://127.0.0.1:8000`,
		}},
		{"upstream of an address alone", worker, env{"WORKER_ENGINE": "upstream", "WORKER_UPSTREAM_URL": "127.0.0.1:8000"}, []string{
			`WORKER_UPSTREAM_URL="127.0.0.1:8000": no URL of a server; give one such as http://127.0.0.1:8000`,
		}},
		{"upstream that nobody asks, with a password", worker, env{"WORKER_UPSTREAM_URL": "http://me:secret@localhost:8000"}, []string{
			`WORKER_UPSTREAM_URL="http://me:xxxxx@localhost:8000": only with CONNECTION_SWAP_WORKER_ENGINE=upstream`,
		}},
		{"failure mode", worker, env{"WORKER_FAILURE_MODE": "crash"}, []string{`WORKER_FAILURE_MODE="crash": unknown; give none, error, exit, hang, drop or slow`}},
		{"output", client, env{"CLIENT_OUTPUT": "xml"}, []string{`CLIENT_OUTPUT="xml": unknown; give text, log or json`}},
		{"log", client, env{"LOG_LEVEL": "INFO", "LOG_FORMAT": "text"}, []string{
			`LOG_LEVEL="INFO": unknown; give debug, info, warn or error`,
			`LOG_FORMAT="text": unknown; give console or json`,
		}},
		{"label", worker, env{"WORKER_LABEL": "worker a"}, []string{`WORKER_LABEL="worker a": not a name; give 1 to 253 letters, digits, dashes, dots and underscores, such as worker-a`}},
		{"id", director, env{"DIRECTOR_ID": "ü"}, []string{`DIRECTOR_ID="ü": not a name; give 1 to 253 letters, digits, dashes, dots and underscores, such as worker-a`}},

		{"capacity", worker, env{"WORKER_CAPACITY": "0"}, []string{`WORKER_CAPACITY="0": too low; give at least 1`}},
		{"tokens", client, env{"CLIENT_MAX_TOKENS": "-1"}, []string{`CLIENT_MAX_TOKENS="-1": too low; give at least 0`}},
		{"loss", director, env{"PACKET_LOSS": "0.95"}, []string{`PACKET_LOSS="0.95": out of range; give a number from 0 to 0.9`}},
		{"loss that is no number", director, env{"PACKET_LOSS": "NaN"}, []string{`PACKET_LOSS="NaN": out of range; give a number from 0 to 0.9`}},
		{"heartbeats", worker, env{"HEARTBEAT_INTERVAL": "0s", "HEARTBEAT_TIMEOUT": "-3s"}, []string{
			`HEARTBEAT_INTERVAL="0s": not above 0; give a duration such as 1s`,
			`HEARTBEAT_TIMEOUT="-3s": not above 0; give a duration such as 1s`,
		}},
		{"prompt", director, env{"DIRECTOR_MAX_PROMPT_BYTES": "16777217"}, []string{`DIRECTOR_MAX_PROMPT_BYTES="16777217": out of range; give a number from 1 to 16777216`}},
		{"session", director, env{"DIRECTOR_MAX_SESSION_BYTES": "67108865"}, []string{`DIRECTOR_MAX_SESSION_BYTES="67108865": out of range; give a number from 1 to 67108864`}},
		{"idle timeout", director, env{"DIRECTOR_LINK_IDLE_TIMEOUT": "100ms"}, []string{`DIRECTOR_LINK_IDLE_TIMEOUT="100ms": not above CONNECTION_SWAP_DIRECTOR_LINK_KEEP_ALIVE="100ms"; give at least twice that`}},
		{"keep-alive", director, env{"DIRECTOR_LINK_KEEP_ALIVE": "1s"}, []string{
			`DIRECTOR_LINK_IDLE_TIMEOUT="300ms": not above CONNECTION_SWAP_DIRECTOR_LINK_KEEP_ALIVE="1s"; give at least twice that`,
			`DIRECTOR_PROGRESS_TIMEOUT="500ms": not above CONNECTION_SWAP_DIRECTOR_LINK_KEEP_ALIVE="1s"; give at least twice that`,
		}},
		{"factor", director, env{"DIRECTOR_TOKEN_TIMEOUT_FACTOR": "0.5"}, []string{`DIRECTOR_TOKEN_TIMEOUT_FACTOR="0.5": out of range; give a number from 1 to 1000`}},
		{"limits", director, env{
			"DIRECTOR_MAX_CONNECTIONS": "0", "DIRECTOR_MAX_STREAMS": "0", "DIRECTOR_MAX_SESSIONS": "0", "DIRECTOR_MAX_TOKENS": "0", "DIRECTOR_WINDOW_TOKENS": "0",
			"DIRECTOR_MAX_SWAPS_PER_MINUTE": "0", "DIRECTOR_MAX_CONCURRENT_SWAPS": "0", "DIRECTOR_MAX_WORKER_DEATHS": "0",
		}, []string{
			`DIRECTOR_MAX_CONNECTIONS="0": too low; give at least 1`,
			`DIRECTOR_MAX_STREAMS="0": too low; give at least 1`,
			`DIRECTOR_MAX_SESSIONS="0": too low; give at least 1`,
			`DIRECTOR_MAX_TOKENS="0": too low; give at least 1`,
			`DIRECTOR_WINDOW_TOKENS="0": too low; give at least 1`,
			`DIRECTOR_MAX_SWAPS_PER_MINUTE="0": too low; give at least 1`,
			`DIRECTOR_MAX_CONCURRENT_SWAPS="0": too low; give at least 1`,
			`DIRECTOR_MAX_WORKER_DEATHS="0": too low; give at least 1`,
		}},
		{"times", director, env{
			"DIRECTOR_WORKER_WAIT": "0", "DIRECTOR_CLIENT_STALL": "0", "DIRECTOR_ATTACH_TIMEOUT": "0",
			"DIRECTOR_FIRST_TOKEN_TIMEOUT": "0", "DIRECTOR_TOKEN_TIMEOUT_MIN": "0",
		}, []string{
			`DIRECTOR_WORKER_WAIT="0s": not above 0; give a duration such as 1s`,
			`DIRECTOR_CLIENT_STALL="0s": not above 0; give a duration such as 1s`,
			`DIRECTOR_ATTACH_TIMEOUT="0s": not above 0; give a duration such as 1s`,
			`DIRECTOR_FIRST_TOKEN_TIMEOUT="0s": not above 0; give a duration such as 1s`,
			`DIRECTOR_TOKEN_TIMEOUT_MIN="0s": not above 0; give a duration such as 1s`,
		}},

		{"all at once", worker, env{
			"WORKER_CAPACITY": "many", "WORKER_RECOVERY": "soon", "WORKER_LABLE": "a", "WORKER_ENGINE": "gpt", "WORKER_FAILURE_MIN": "1m",
		}, []string{
			`WORKER_CAPACITY="many": not a whole number; give one such as 1024`,
			`WORKER_RECOVERY="soon": not a duration; give a number with a unit (ms, s, m, h), such as 10s`,
			`WORKER_LABLE="a": no such variable; did you mean CONNECTION_SWAP_WORKER_LABEL?`,
			`WORKER_ENGINE="gpt": unknown; give markov, counter or stateful, or upstream alone`,
			`WORKER_FAILURE_MIN="1m0s": above CONNECTION_SWAP_WORKER_FAILURE_MAX="25s"; give at most 25s, or raise the other`,
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setenv(t, test.env)
			err := test.load()
			var problems *config.Problems
			require.ErrorAs(t, err, &problems)
			require.Len(t, problems.List, len(test.want))
			for i := range test.want {
				test.want[i] = "CONNECTION_SWAP_" + test.want[i]
			}
			require.Equal(t, strings.Join(test.want, "\n"), err.Error())
		})
	}
}

func TestValidate(t *testing.T) {
	director, worker, client := config.DefaultDirector(), config.DefaultWorker(), config.DefaultClient()
	director.ID, worker.Label = "director-1", "worker-a"
	require.NoError(t, director.Validate())
	require.NoError(t, worker.Validate())
	require.NoError(t, client.Validate())

	worker.Capacity = 0
	err := worker.Validate()
	var problem config.Problem
	require.ErrorAs(t, err, &problem)
	require.Equal(t, "CONNECTION_SWAP_WORKER_CAPACITY", problem.Variable)
}

func TestCannotBind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	addr := taken.Addr().String()
	_, err = net.Listen("tcp", addr)
	err = config.CannotBind("WORKER_USER_ADDR", addr, err)
	require.EqualError(t, err, `CONNECTION_SWAP_WORKER_USER_ADDR="`+addr+`": cannot be bound: address already in use; give a free port of an address of this machine`)
	require.EqualError(t, config.CannotBind("X", ":1", errors.New("no")), `CONNECTION_SWAP_X=":1": cannot be bound: no; give a free port of an address of this machine`)
}

func TestWorkerModels(t *testing.T) {
	for engine, want := range map[string]any{
		"markov":                []config.Model{{Engine: "markov"}},
		"counter, markov=8":     []config.Model{{Engine: "counter"}, {Engine: "markov", Capacity: 8}},
		"":                      "unknown; give markov, counter or stateful, or upstream alone",
		"markov,gpt":            `"gpt": unknown; give markov, counter or stateful, or upstream alone`,
		"markov,":               `"": unknown; give markov, counter or stateful, or upstream alone`,
		"markov,counter,markov": "markov stands there twice",
		"markov=0":              `markov="0": give a number of streams from 1 on`,
		"markov=many":           `markov="many": give a number of streams from 1 on`,
	} {
		got, err := (&config.Worker{Engine: engine}).Models()
		if text, wrong := want.(string); wrong {
			require.EqualError(t, err, text, engine)
			continue
		}
		require.NoError(t, err, engine)
		require.Equal(t, want, got, engine)
	}
}
