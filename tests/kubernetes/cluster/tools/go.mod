module strake/tests/kubernetes/cluster/tools

go 1.25.0
