//! A graph of ONNX in which each node reads what the one before has computed.

use crate::checkpoint::format::{Dtype, Tensor};
use crate::exchange::onnx_proto::{
    AttributeProto, DOUBLE, Dimension, FLOAT, GraphProto, INT, NodeProto, TensorProto, TensorShapeProto, TensorType,
    TypeProto, ValueInfoProto,
};

/// The name of the graph's input.
const INPUT: &str = "x";
/// The name of the graph's output.
const OUTPUT: &str = "y";

/// A chain of nodes from the input to the output, and the constants that they read.
#[derive(Debug, Default)]
pub(super) struct Chain {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Chain {
    /// Adds a node, which reads the output of the node before it, and then these constants.
    pub(super) fn node(&mut self, operator: &str, constants: Vec<(String, Tensor)>, attribute: Option<(&str, i64)>) {
        let before = self.nodes.last().map_or(INPUT, |node| &node.output[0]);
        let mut input = vec![before.to_owned()];
        for (name, Tensor { dtype, shape, bytes }) in constants {
            input.push(name.clone());
            let data_type = data_type(dtype);
            self.constants.push(TensorProto {
                dims: shape.into_iter().map(int).collect(),
                data_type,
                name,
                raw_data: bytes,
            });
        }
        let attribute =
            attribute.map(|(name, value)| AttributeProto { name: name.into(), i: Some(value), r#type: INT });
        let name = format!("{operator}_{}", self.nodes.len());
        let (output, op_type) = (vec![name.clone()], operator.to_owned());
        self.nodes.push(NodeProto { input, output, name, op_type, attribute: attribute.into_iter().collect() });
    }

    /// Adds a conversion to another type.
    pub(super) fn cast(&mut self, to: Dtype) {
        self.node("Cast", Vec::new(), Some(("to", data_type(to).into())));
    }

    /// The graph of a chain that makes `outputs` numbers of `inputs` numbers, for each row of any
    /// number of them. `meaning` says what the outputs are.
    pub(super) fn into_graph(mut self, inputs: usize, outputs: usize, dtype: Dtype, meaning: &str) -> GraphProto {
        let last = self.nodes.last_mut().expect("a network has a layer");
        last.output = vec![OUTPUT.to_owned()];
        let value = |name: &str, width: usize, doc_string: &str| {
            let batch = Dimension { dim_param: Some("batch".into()), dim_value: None };
            let dim = vec![batch, Dimension { dim_value: Some(int(width)), dim_param: None }];
            let tensor_type = TensorType { elem_type: data_type(dtype), shape: TensorShapeProto { dim } };
            ValueInfoProto { name: name.into(), r#type: TypeProto { tensor_type }, doc_string: doc_string.into() }
        };
        GraphProto {
            input: vec![value(INPUT, inputs, "samples in rows")],
            output: vec![value(OUTPUT, outputs, meaning)],
            node: self.nodes,
            name: "network".into(),
            initializer: self.constants,
        }
    }
}

fn data_type(dtype: Dtype) -> i32 {
    if dtype == Dtype::F32 { FLOAT } else { DOUBLE }
}

fn int(length: usize) -> i64 {
    i64::try_from(length).expect("no array is as long")
}
