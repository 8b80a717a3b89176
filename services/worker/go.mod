module github.com/connswap/connswap/services/worker

go 1.26.0
