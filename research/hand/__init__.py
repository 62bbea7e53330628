"""The human hand: skeleton, kinematics [mm], poses, surface, camera and keypoint metrics."""
