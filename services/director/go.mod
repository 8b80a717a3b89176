module github.com/connswap/connswap/services/director

go 1.26.0
