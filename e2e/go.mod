module github.com/connswap/connswap/e2e

go 1.26.0
