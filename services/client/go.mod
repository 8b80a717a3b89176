module github.com/connswap/connswap/services/client

go 1.26.0
