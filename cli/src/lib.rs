//! The kaizen-mesh command line: what a repo owner and an operator type.
