module github.com/connswap/connswap/services/client

go 1.26.0

require (
	github.com/connswap/connswap/shared v0.0.0
	github.com/mattn/go-isatty v0.0.24
	github.com/quic-go/quic-go v0.65.0
	github.com/spf13/cobra v1.10.2
	go.uber.org/zap v1.28.0
)

require (
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	go.uber.org/multierr v1.10.0 // indirect
	golang.org/x/time v0.16.0 // indirect
)

require (
	github.com/agext/levenshtein v1.2.3 // indirect
	github.com/kelseyhightower/envconfig v1.4.0 // indirect
	github.com/spf13/pflag v1.0.10
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/connswap/connswap/shared => ../../shared
