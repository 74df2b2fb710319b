module estclient
go 1.21
require github.com/globalsign/est v1.0.6
